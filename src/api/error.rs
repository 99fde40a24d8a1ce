//! Refusals as HTTP answers, and requests that are not well-formed as refusals. Pure.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;

use crate::node::engine::effect::{Refusal, RefusalCode};

use super::wire::{ErrorBody, ErrorWords};

/// Longest body of a request in JSON: a specification may have 1 MiB, and JSON may double it by escaping.
pub(super) const REQUEST_LEN_MAX: usize = 2 * 1024 * 1024 + 64 * 1024;

/// A refusal on its way out.
#[derive(Debug)]
pub(super) struct ApiError(pub(super) Refusal);

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Refusal { code, message, hint } = self.0;
        let error = ErrorWords { code: code.word().to_owned(), message, hint };
        (status(code), Json(ErrorBody { error })).into_response()
    }
}

/// The HTTP status of a refusal. Programs should look at the code word: it says more.
pub(super) fn status(code: RefusalCode) -> StatusCode {
    match code {
        RefusalCode::NotFound => StatusCode::NOT_FOUND,
        RefusalCode::Conflict => StatusCode::CONFLICT,
        RefusalCode::Invalid => StatusCode::BAD_REQUEST,
        RefusalCode::Limit => StatusCode::TOO_MANY_REQUESTS,
        RefusalCode::NotAllowed => StatusCode::FORBIDDEN,
        RefusalCode::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        RefusalCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// An invalid request, for people.
pub(super) fn invalid(message: impl std::fmt::Display) -> Refusal {
    Refusal::new(RefusalCode::Invalid, message)
}

/// A JSON body of a known form; refused with our own error where it is not.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, state: &S) -> Result<Self, ApiError> {
        DefaultBodyLimit::max(REQUEST_LEN_MAX).apply(&mut request);
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| invalid(format!("cannot read the request: {}", rejection.body_text())))?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let value = serde_json::from_slice(bytes)
            .map_err(|error| invalid(format!("the request's body is not what belongs here: {error}")))?;
        Ok(Self(value))
    }
}

/// A query string of a known form; refused with our own error where it is not.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::from_request_parts(parts, state).await.map_err(|rejection| {
            invalid(format!("the request's query is not what belongs here: {}", rejection.body_text()))
        })?;
        Ok(Self(value))
    }
}
