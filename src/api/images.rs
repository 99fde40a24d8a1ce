//! The images of kept revisions. Wiring.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;

use super::ApiState;
use super::wire::Image;
use crate::ids::BlobHash;
use crate::node::engine::view::View;

/// `GET /v1/images`
pub(super) async fn list(State(state): State<ApiState>) -> Json<Vec<Image>> {
    Json(images(&state.node.view()))
}

/// By object name. One that several revisions name is as old as the first of them.
fn images(view: &View) -> Vec<Image> {
    let mut images: BTreeMap<(String, BlobHash), Image> = BTreeMap::new();
    for service in view.services.iter() {
        for revision in service.history.iter().rev() {
            for image in &revision.images {
                let object_name = image.object_name(&service.name, &revision.spec.tag);
                let row = images.entry((object_name.clone(), image.hash)).or_insert_with(|| Image {
                    object_name,
                    size: image.size,
                    modified: revision.at.to_string(),
                    tag: revision.spec.tag.clone(),
                    os: image.platform.os.clone(),
                    arch: image.platform.arch.clone(),
                    digest: format!("blake3:{}", image.hash),
                    nodes: view.copies.of(&image.hash).iter().map(ToString::to_string).collect(),
                    copies_wanted: view.copies.wanted,
                    used_by: Vec::new(),
                });
                let name = service.name.to_string();
                if !row.used_by.contains(&name) {
                    row.used_by.push(name);
                }
            }
        }
    }
    images.into_values().collect()
}
