//! A member that lies: it alters what others said of themselves before it passes it on. Pure.

use narun::crdt::admission::Signed;
use narun::crdt::roster::Record;
use narun::gossip::message::{Message, News};
use narun::ids::NodeKey;

/// The message with every record of others than `forger` altered, under the signature of the true one; none when there was
/// nothing to alter.
pub(crate) fn altered(forger: &NodeKey, bytes: &[u8]) -> Option<Vec<u8>> {
    let message = match Message::decode(bytes)? {
        Message::News { news, acknowledge } => match minicbor::decode::<News>(&news).ok()? {
            News::Record(signed) => {
                Message::News { news: News::Record(altered_record(forger, &signed)?).encode(), acknowledge }
            }
            News::Document(_) => return None,
        },
        Message::Relay { news, stretch } => match minicbor::decode::<News>(&news).ok()? {
            News::Record(signed) => {
                Message::Relay { news: News::Record(altered_record(forger, &signed)?).encode(), stretch }
            }
            News::Document(_) => return None,
        },
        Message::Repair { documents, mut records, more } => {
            for signed in &mut records {
                if let Some(forged) = altered_record(forger, signed) {
                    *signed = forged;
                }
            }
            Message::Repair { documents, records, more }
        }
        _ => return None,
    };
    Some(message.encode())
}

/// "It says nothing any more", and in a version that overrules all that it will say for long.
fn altered_record(forger: &NodeKey, signed: &Signed) -> Option<Signed> {
    let mut record: Record = minicbor::decode(&signed.body).ok()?;
    if record.node == *forger {
        return None;
    }
    record.stamp.version += 1_000_000;
    record.content.clear();
    let body = minicbor::to_vec(&record).expect("encoding into memory cannot fail");
    Some(Signed { body, signature: signed.signature.clone() })
}
