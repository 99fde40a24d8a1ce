//! `narun ticket`: what lets new members in. Wiring, and the pure text of its tables.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::api::wire::{self, MadeTicket, NewTicket};

use super::failure::Failure;
use super::output::Output;
use super::reach::Reach;
use super::table::table;
use super::words;

#[derive(Subcommand, Debug)]
pub(crate) enum Ticket {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a ticket that lets new members in
///
/// The ticket is redeemed at the node that made it, so that node must be reachable by whoever joins. Whoever holds the ticket
/// can become a member: hand it on with care. It is shown this once. JSON keys: ticket, id, expires, uses.
#[derive(Args, Debug)]
#[command(
    after_long_help = "Example:\n  narun ticket create --ttl 10m --uses 3\n  narun join \"$(narun ticket create)\""
)]
pub(crate) struct Create {
    /// How long it is good for
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = words::duration)]
    ttl: Duration,
    /// How many members it lets in
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    /// What it makes of them: an operator-only node answers commands, and runs and keeps nothing for others
    #[arg(long, value_name = "ROLE", default_value = "member", value_parser = ["member", "operator-only"])]
    role: String,
}

/// List the good tickets that the answering node made
///
/// Columns and JSON keys: id, expires, uses_left, role.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun ticket list")]
pub(crate) struct List {}

/// Make a ticket worthless, at the node that made it
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun ticket revoke 3f2a9c1b04de")]
pub(crate) struct Revoke {
    /// The ticket's identifier, as `narun ticket list` shows it
    id: String,
}

impl Ticket {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        match self {
            Self::Create(create) => {
                // Whole seconds, and never fewer than asked for.
                let ttl_seconds = create.ttl.as_secs() + u64::from(create.ttl.subsec_nanos() > 0);
                let made = reach
                    .client()?
                    .create_ticket(&NewTicket { ttl_seconds, uses: create.uses, role: Some(create.role) })
                    .await?;
                output.answer(&made, || made_text(&made))
            }
            Self::List(List {}) => {
                let tickets = reach.client()?.tickets().await?;
                output.answer(&tickets, || list_text(&tickets))
            }
            Self::Revoke(Revoke { id }) => {
                reach.client()?.revoke_ticket(&id).await?;
                output.answer(&json!({ "id": id, "revoked": true }), || {
                    format!("ticket `{id}` lets nobody in any more\n")
                })
            }
        }
    }
}

/// The ticket alone: it is made to be handed on by `$(…)`.
fn made_text(made: &MadeTicket) -> String {
    format!("{}\n", made.ticket)
}

fn list_text(tickets: &[wire::Ticket]) -> String {
    let row = |ticket: &wire::Ticket| {
        let wire::Ticket { id, expires, uses_left, role } = ticket;
        [id.clone(), words::seconds(expires), uses_left.to_string(), role.clone()]
    };
    table(["ID", "EXPIRES", "USES_LEFT", "ROLE"], tickets.iter().map(row))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_shown_without_their_secret() {
        let ticket = wire::Ticket {
            id: "3f2a9c1b04de".into(),
            expires: "2026-11-21T10:30:00.000Z".into(),
            uses_left: 2,
            role: "member".into(),
        };
        assert_eq!(
            list_text(&[ticket]),
            "ID            EXPIRES               USES_LEFT  ROLE\n3f2a9c1b04de  2026-11-21T10:30:00Z  2          member\n"
        );
        let made = MadeTicket { ticket: "narun1abc".into(), id: "x".into(), expires: String::new(), uses: 1 };
        assert_eq!(made_text(&made), "narun1abc\n");
    }
}
