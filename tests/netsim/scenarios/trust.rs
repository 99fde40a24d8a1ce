//! Members that lie.

use super::*;

use narun::crdt::admission::{ADMISSION_DOMAIN, Admission, Role, Signed};
use narun::crdt::catalog::{DocDelta, DocKey};
use narun::crdt::document::{Actor, Document};
use narun::gossip::message::{Message, News};
use narun::ids::NodeName;

use crate::host::key_of;
use crate::signatures::SimSignatures;
use crate::wish::{anywhere, everywhere};

#[test]
fn a_member_that_alters_what_others_say_is_refused_and_named() {
    scenario("a_member_that_alters_what_others_say_is_refused_and_named", 4, async |mut world| {
        world.forge(1, true);
        // What n0 and the others say to one another goes through n1: by its names, and by anti-entropy.
        for other in [2, 3] {
            world.fabric.cut(world.hosts[0].key, world.hosts[other].key);
            world.fabric.cut(world.hosts[other].key, world.hosts[0].key);
        }
        world.run_for(Duration::from_secs(20)).await;
        for number in 0..4 {
            deployed(&mut world, number, Deployment::new("web", &format!("m{number}"), anywhere(6))).await;
            world.run_for(Duration::from_secs(8)).await;
        }
        deployed(&mut world, 1, Deployment::new("agent", "a", everywhere(1))).await;
        world.fabric.heal_all();
        // The others hear one another, whatever the liar makes of it.
        at_rest(&mut world, &[]).await;
        for host in [0, 2, 3] {
            let view = world.view(host);
            let altered = view.problems.iter().filter(|problem| problem.message.contains("altered"));
            let named: Vec<&str> = altered.map(|problem| problem.subject.as_str()).collect();
            assert_eq!(named, ["n1"], "n{host} names the liar, and nobody who only passed something on");
        }
    });
}

/// An admission of a stranger, in the name of n0 and with `signer`'s signature, as a member would tell it.
fn admission_of_a_stranger(world: &World, signer: usize) -> Vec<u8> {
    let (founder, stranger) = (&world.hosts[0], key_of("stranger"));
    let admission = Admission {
        cluster: world.view(0).me.cluster,
        key: stranger,
        name: NodeName::new("stranger").expect("a good name"),
        by: founder.key,
        ticket: String::new(),
        at: founder.clock.wall(),
        addresses: Vec::new(),
        role: Role::MEMBER,
    };
    let signed = Signed::new(&SimSignatures(world.hosts[signer].key), ADMISSION_DOMAIN, &admission);
    let mut document = Document::default();
    let actor = Actor { key: world.hosts[signer].key, boot: 900 };
    document.put_revision(actor, |_| minicbor::to_vec(&signed).expect("encoding into memory cannot fail"));
    let key = DocKey::admission(&stranger);
    let news = News::Document(DocDelta { key, epoch: document.epoch(), changes: document.save() }).encode();
    Message::News { news, acknowledge: false }.encode()
}

#[test]
fn nobody_is_admitted_in_the_name_of_another_member() {
    scenario("nobody_is_admitted_in_the_name_of_another_member", 3, async |mut world| {
        // The world itself looks at each step whether anybody shows a member that nobody let in.
        let forged = admission_of_a_stranger(&world, 1);
        world.send_as(1, 0, forged.clone());
        world.send_as(1, 2, forged);
        world.run_for(Duration::from_secs(30)).await;
        at_rest(&mut world, &[]).await;

        // The same with the signature of the member that it names is good: it was the signature that was looked at.
        world.journal.admit(key_of("stranger"));
        let honest = admission_of_a_stranger(&world, 0);
        world.send_as(0, 2, honest);
        world
            .until(Duration::from_secs(30), "admitted", |world| {
                let known = |host: &usize| world.view(*host).nodes.iter().any(|node| node.name.as_str() == "stranger");
                if (0..3).all(|host| known(&host)) { Ok(()) } else { Err("not everywhere".into()) }
            })
            .await;
    });
}
