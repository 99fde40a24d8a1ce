//! The tickets that this node made. Wiring.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use crate::crdt::admission::Role;
use crate::node::clock::SystemClock;
use crate::node::engine::effect::{Refusal, RefusalCode, Response};
use crate::node::engine::input::Request;
use crate::node::shells::Clock;

use super::ApiState;
use super::error::{ApiError, Body, invalid};
use super::services::unexpected;
use super::wire::{MadeTicket, NewTicket, Ticket};

/// Longest life of a ticket: a year. What lets strangers in should not outlive the memory of who made it.
const TTL_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

/// `GET /v1/tickets`
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Ticket>> {
    let view = state.node.view();
    // The view is made anew when something changes, and that a ticket expires is no change.
    let now = SystemClock.now().wall;
    let tickets = view.tickets.iter().filter(|ticket| ticket.expires > now).map(|ticket| Ticket {
        id: ticket.id.clone(),
        expires: ticket.expires.to_string(),
        uses_left: ticket.uses_left,
        role: ticket.role.word().to_owned(),
    });
    Json(tickets.collect())
}

/// `POST /v1/tickets`
pub(super) async fn create(
    State(state): State<ApiState>,
    Body(asked): Body<NewTicket>,
) -> Result<Json<MadeTicket>, ApiError> {
    let ttl = Duration::from_secs(asked.ttl_seconds);
    if ttl.is_zero() || ttl > TTL_MAX {
        return Err(invalid("a ticket is good for at least a second and at most 366 days").into());
    }
    if asked.uses == 0 {
        return Err(invalid("a ticket admits at least one member").into());
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| {
        Refusal::new(RefusalCode::Unavailable, format!("the system gives no random bytes for a ticket: {error}"))
    })?;
    let role = match &asked.role {
        None => Role::MEMBER,
        Some(word) => Role::of_word(word)
            .ok_or_else(|| invalid(format!("`{word}` is no role")).hint("there are `member` and `operator-only`"))?,
    };
    match state.node.request(Request::CreateTicket { ttl, uses: asked.uses, role, secret }).await? {
        Response::Ticket(ticket) => Ok(Json(MadeTicket {
            ticket: ticket.to_string(),
            id: ticket.id(),
            expires: ticket.expires.to_string(),
            uses: ticket.uses,
        })),
        other => Err(unexpected(&other).into()),
    }
}

/// `DELETE /v1/tickets/{id}`
pub(super) async fn revoke(State(state): State<ApiState>, Path(id): Path<String>) -> Result<StatusCode, ApiError> {
    match state.node.request(Request::RevokeTicket { ticket: id }).await? {
        Response::Revoked => Ok(StatusCode::NO_CONTENT),
        other => Err(unexpected(&other).into()),
    }
}
