//! The images of kept revisions. Wiring.

use axum::Json;
use axum::extract::State;

use super::ApiState;
use super::wire::Image;

/// `GET /v1/images`
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Image>> {
    let view = state.node.view();
    let images = view.images.iter().map(|held| Image {
        object_name: held.object_name.clone(),
        size: held.image.size,
        modified: held.modified.to_string(),
        tag: held.tag.clone(),
        os: held.image.platform.os.clone(),
        arch: held.image.platform.arch.clone(),
        digest: format!("blake3:{}", held.image.hash),
        nodes: held.nodes.iter().map(ToString::to_string).collect(),
        copies_wanted: held.copies_wanted,
        used_by: held.used_by.iter().map(ToString::to_string).collect(),
    });
    Json(images.collect())
}
