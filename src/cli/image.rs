//! `narun list-images`: the binaries of kept revisions. Wiring, and the pure text of its table.

use clap::{Args, Subcommand};

use crate::api::wire;

use super::failure::Failure;
use super::output::{Output, note};
use super::reach::Reach;
use super::table::table;
use super::words;

#[derive(Subcommand, Debug)]
pub(crate) enum Image {
    List(List),
}

/// List the binaries of all kept revisions
///
/// Columns and JSON keys: OBJECT_NAME SIZE MODIFIED TAG OS ARCH DIGEST NODES USED_BY. The table shows the first digits of
/// digests, JSON all of them; sizes are bytes in JSON.
#[derive(Args, Debug)]
#[command(after_long_help = "Example:\n  narun list-images\n  narun image list -o json")]
pub(crate) struct List {}

impl List {
    pub(crate) async fn run(self, reach: &Reach, output: &mut Output) -> Result<(), Failure> {
        let images = reach.client()?.images().await?;
        if images.is_empty() {
            note("no images: nothing was deployed yet");
        }
        output.answer(&images, || text(&images))
    }
}

fn text(images: &[wire::Image]) -> String {
    let row = |image: &wire::Image| {
        [
            image.object_name.clone(),
            words::size(image.size),
            words::seconds(&image.modified),
            image.tag.clone(),
            image.os.clone(),
            image.arch.clone(),
            digest(&image.digest),
            image.nodes.join(","),
            image.used_by.join(","),
        ]
    };
    table(
        ["OBJECT_NAME", "SIZE", "MODIFIED", "TAG", "OS", "ARCH", "DIGEST", "NODES", "USED_BY"],
        images.iter().map(row),
    )
}

fn digest(digest: &str) -> String {
    match digest.split_once(':') {
        Some((kind, digits)) => format!("{kind}:{}", words::short(digits)),
        None => words::short(digest).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_in_a_table() {
        let image = wire::Image {
            object_name: "web-v1-linux-amd64".into(),
            size: 10_000_000,
            modified: "2026-11-21T10:30:00.123Z".into(),
            tag: "v1".into(),
            os: "linux".into(),
            arch: "amd64".into(),
            digest: format!("blake3:{}", "ab".repeat(32)),
            nodes: vec!["n1".into(), "n2".into()],
            copies_wanted: 2,
            used_by: vec!["web".into()],
        };
        assert_eq!(
            text(&[image]),
            "\
OBJECT_NAME         SIZE     MODIFIED              TAG  OS     ARCH   DIGEST             NODES  USED_BY
web-v1-linux-amd64  9.5 MiB  2026-11-21T10:30:00Z  v1   linux  amd64  blake3:ababababab  n1,n2  web
"
        );
    }
}
