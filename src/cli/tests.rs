//! The command line as users meet it: its words, and whole commands against an API with a stand-in for the engine.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::CommandFactory;
use serde_json::Value;

use super::failure::Failure;
use super::output::Output;
use super::{Cli, parse};
use crate::api::tests::{Answer, Api, revised, settled, view};
use crate::ids::ServiceName;
use crate::node::engine::effect::{Refusal, RefusalCode, Response};
use crate::node::engine::input::Request;
use crate::node::engine::view::{DrainView, LeftView, View};
use crate::time::Wall;

/// What a command wrote to standard output.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a command line, its words separated by spaces.
pub(super) async fn run(line: &str) -> (Result<(), Failure>, String) {
    let words: Vec<_> = ["narun"].into_iter().chain(line.split(' ')).collect();
    run_words(&words).await
}

async fn run_words(words: &[&str]) -> (Result<(), Failure>, String) {
    let written = Written::default();
    let mut output = Output::to(Box::new(written.clone()));
    let done = match parse(words) {
        Ok(cli) => {
            output.json = cli.reach.wants_json();
            cli.ask(&mut output).await
        }
        Err(failure) => Err(failure),
    };
    let done = done.and_then(|()| output.flush());
    let text = String::from_utf8_lossy(&written.0.lock().unwrap()).into_owned();
    (done, text)
}

/// Runs a command line against a node with that view.
async fn against(view: View, answer: Answer, line: &str) -> (Result<(), Failure>, String) {
    let api = Api::start(view, answer).await;
    run(&format!("--api unix:{} {line}", api.client.socket().display())).await
}

pub(super) fn failure(words: &str) -> Failure {
    let words: Vec<_> = ["narun"].into_iter().chain(words.split(' ').filter(|word| !word.is_empty())).collect();
    parse(words).expect_err("this line is wrong")
}

#[test]
fn the_commands_are_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_with_an_example() {
    fn walk(command: &clap::Command, path: &str) {
        for next in command.get_subcommands().filter(|next| !next.is_hide_set() && next.get_name() != "help") {
            let path = format!("{path} {}", next.get_name());
            assert!(next.get_about().is_some(), "`{path}` says nothing about itself");
            if next.has_subcommands() {
                walk(next, &path);
                continue;
            }
            let help = next.clone().render_long_help().to_string();
            assert!(
                help.contains(&format!("  {}", &path)) || help.contains(&path),
                "`{path}` shows no example of itself"
            );
            assert!(help.contains("Example"), "`{path}` has no example");
            for arg in next.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "`{path}` does not explain {}", arg.get_id());
            }
        }
    }
    let mut command = Cli::command();
    command.build();
    walk(&command, "narun");
}

#[test]
fn options_stand_anywhere() {
    for line in [
        "service delete web -y",
        "service delete -y web",
        "service -o json delete web --yes --timeout 5s",
        "-o json --timeout=5s service delete web",
        "--data-dir /tmp/x status",
        "status --data-dir /tmp/x",
        "logs -f --app web --stream stderr --tail 5",
        "list-images -o json",
        "image list",
        "ticket create --ttl 10m --uses 3",
        "deploy ./web --name web --tag v1",
        "deploy --config web.yaml ./a ./b --wait",
        "deploy --name web --tag v1 --arg --flag --arg -x --env A=B ./web",
        "service scale web 0 --wait",
        "node label n1 zone=a disk-",
        "node drain n1 -y --timeout 10m",
        "node drain --no-wait n1",
        "node uncordon n1",
        "start --name n1 --label a=b --label c=d",
        "join 10.0.0.1:7470 --token narun1x",
        "keeper --data-dir /tmp/x",
    ] {
        parse(["narun"].into_iter().chain(line.split(' '))).unwrap_or_else(|failure| panic!("{line}: {failure:?}"));
    }
}

#[test]
fn the_first_predecessors_spellings_are_taken() {
    let line = "deploy --name n --tag v1 --runMode cron --cronSchedule @daily --jobMaxRetries 1 --jobTimeoutSeconds 5 --dataDir /x ./a";
    parse(["narun"].into_iter().chain(line.split(' '))).unwrap();
    let told = failure("deploy -config web.yaml ./web").text();
    assert!(told.contains("`--config`"), "{told}");
}

#[test]
fn there_is_no_broker() {
    for line in [
        "service list --nats nats://localhost:4222",
        "--nats=x status",
        "status --nats",
        "logs -nats nats://localhost:4222",
    ] {
        let failure = failure(line);
        assert_eq!(failure.code(), 2, "{line}");
        let text = failure.text();
        assert!(text.contains("no broker") && text.contains("--api"), "{line}: {text}");
        assert_eq!(text.lines().count(), 2, "{text}");
    }
}

#[test]
fn wrong_words_are_usage_errors() {
    for line in [
        "",
        "nonsense",
        "service",
        "service delete",
        "service scale web",
        "service scale web -1",
        "service scale web three",
        "deploy ./web",
        "deploy --name web ./web",
        "deploy --config a.yaml",
        "deploy --config a.yaml --name web ./web",
        "deploy --name web --tag v1 --acks 0 ./web",
        "logs --tail -1",
        "logs --tail 100001",
        "logs --stream stdin",
        "logs -f --until 5m",
        "status --timeout soon",
        "status -o yaml",
        "completion tcsh",
        "ticket create --uses 0.5",
        "node label n1",
        "node drain",
        "node drain n1 --timeout soon",
    ] {
        assert_eq!(failure(line).code(), 2, "{line}");
    }
    for line in ["--help", "-h", "--version", "deploy --help", "service list -h"] {
        assert_eq!(failure(line).code(), 0, "{line}");
    }
}

#[tokio::test]
async fn without_a_node_the_exit_code_is_three() {
    let dir = tempfile::tempdir().unwrap();
    let (done, text) = run(&format!("status --data-dir {}", dir.path().display())).await;
    let failure = done.unwrap_err();
    assert_eq!((failure.code(), text.as_str()), (3, ""));
    let told = failure.text();
    assert!(told.contains("narun.sock") && told.contains("hint: ") && told.contains("`narun start`"), "{told}");

    let failure = run("status --api https://host:1").await.0.unwrap_err();
    assert_eq!(failure.code(), 2);
    assert!(failure.text().contains("`https://`"), "{}", failure.text());
}

#[tokio::test]
async fn refusals_have_exit_code_one() {
    let refuse: Answer = |_| Err(Refusal::new(RefusalCode::NotFound, "no service `wbe`").hint("did you mean `web`?"));
    for line in
        ["service restart wbe", "service stop wbe", "service start wbe", "service scale wbe 2", "service info wbe"]
    {
        let (done, text) = against(view(), refuse, line).await;
        let failure = done.unwrap_err();
        assert_eq!((failure.code(), text.as_str()), (1, ""), "{line}");
        assert!(failure.text().starts_with("error: no service `wbe`\nhint: did you mean `web`?"), "{}", failure.text());
    }
}

#[tokio::test]
async fn every_list_is_json_when_asked() {
    for (line, is_list) in [
        ("service list -o json", true),
        ("service history web -o json", true),
        ("node list -o json", true),
        ("list-images -o json", true),
        ("image list -o json", true),
        ("ticket list -o json", true),
        ("service info web -o json", false),
        ("node info n1 -o json", false),
        ("status -o json", false),
        ("service stop web -o json", false),
    ] {
        let (done, text) = against(view(), revised, line).await;
        done.unwrap_or_else(|failure| panic!("{line}: {}", failure.text()));
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"));
        assert_eq!(value.is_array(), is_list, "{line}");
    }
}

#[tokio::test]
async fn tables_come_out_for_people() {
    let (done, text) = against(view(), revised, "service list").await;
    done.unwrap();
    assert!(text.starts_with("SERVICE  TAG  MODE"), "{text}");
    assert!(text.contains("offline/unknown") && text.contains("0 (not in spec)"), "{text}");
    let (_, text) = against(view(), revised, "service restart web").await;
    assert_eq!(text, "service `web` restarted: revision 2\n");
}

#[tokio::test]
async fn deleting_asks_and_tells() {
    let deleted: Answer = |_| Ok(Response::Deleted { existed: true });
    let (done, text) = against(view(), deleted, "service delete web -y").await;
    done.unwrap();
    assert_eq!(text, "service `web` deleted\n");
    let gone: Answer = |_| Ok(Response::Deleted { existed: false });
    let (done, text) = against(view(), gone, "service delete gone -o json").await;
    done.unwrap();
    assert!(text.contains("\"existed\": false"), "{text}");
}

/// A view in which `n1` is drained, with this left on it.
fn drained(left: &[&str]) -> View {
    let mut view = settled();
    let left =
        left.iter().map(|why| LeftView { service: ServiceName::new("web").unwrap(), index: 0, why: (*why).to_owned() });
    let drain = DrainView { since: Wall(9_000), asked_at: "n2".into(), left: left.collect() };
    Arc::make_mut(&mut Arc::make_mut(&mut view.nodes)[0]).drain = Some(drain);
    view
}

#[tokio::test]
async fn a_drain_asks_waits_and_tells() {
    let set: Answer = |_| Ok(Response::NodeSet { changed: true });
    let (done, text) = against(drained(&[]), set, "node drain n1 -y").await;
    done.unwrap();
    assert_eq!(text, "node `n1` is drained\n");
    let (done, text) =
        against(drained(&["there is no other node"]), set, "node drain n1 -y --timeout 500ms -o json").await;
    let failure = done.unwrap_err();
    assert_eq!((failure.code(), text.as_str()), (1, ""));
    assert!(failure.text().contains("1 instance left:\n  web-0: there is no other node"), "{}", failure.text());
    let (done, text) = against(drained(&["x"]), set, "node drain n1 -y --no-wait -o json").await;
    done.unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((value["state"].as_str(), value["bound"][1].as_str()), (Some("draining"), Some("web-1")));
    let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["node", "changed", "state", "left", "bound"]);

    // `web` names its nodes: somebody has to agree, and nobody can be asked here.
    let (done, _) = against(drained(&[]), |_| panic!("nobody has agreed"), "node drain n1").await;
    let failure = done.unwrap_err();
    assert!(failure.text().contains("web-0, web-1") && failure.text().contains("-y"), "{}", failure.text());
    let (done, _) = against(settled(), set, "node drain n1 -y").await;
    assert!(done.unwrap_err().text().contains("was brought back"), "somebody undid it meanwhile");
    let (done, text) = against(settled(), set, "node uncordon n1").await;
    done.unwrap();
    assert_eq!(text, "node `n1` is back\n");
    let (done, _) = against(settled(), set, "node drain n3 -y").await;
    assert!(done.unwrap_err().text().contains("no node `n3`"));
}

#[tokio::test]
async fn labels_are_sent_and_the_result_is_shown() {
    let labelled: Answer = |request| {
        let Request::LabelNode { node, set, remove } = request else { panic!("{request:?}") };
        assert_eq!((node.as_str(), set["zone"].as_str(), remove.contains("disk")), ("n1", "a", true));
        Ok(Response::Labelled { labels: set.clone(), changed: true })
    };
    let (done, text) = against(view(), labelled, "node label n1 zone=a disk-").await;
    done.unwrap();
    assert_eq!(text, "zone=a\n");
    let (done, text) = against(view(), labelled, "node label n1 zone=a disk- -o json").await;
    done.unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value, serde_json::json!({ "node": "n1", "labels": { "zone": "a" }, "changed": true }));
}

#[tokio::test]
async fn waiting_hands_on_what_came_of_it() {
    let (done, text) = against(settled(), revised, "service restart web --wait -o json").await;
    done.unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((value["ready"].as_u64(), value["desired"].as_u64()), (Some(2), Some(2)));

    let (done, text) = against(view(), revised, "service restart web --wait --timeout 100ms").await;
    let failure = done.unwrap_err();
    assert_eq!((failure.code(), text.as_str()), (1, ""));
    assert!(failure.text().contains("after 100ms") && failure.text().contains("web-1"), "{}", failure.text());
}

#[tokio::test]
async fn stopping_waits_for_the_end() {
    let mut api = Api::start(view(), revised).await;
    let line = format!("stop --api unix:{}", api.client.socket().display());
    let (ended, (done, text)) = tokio::join!(
        async {
            api.stopped.recv().await;
            api.end();
            true
        },
        run(&line)
    );
    done.unwrap();
    assert!(ended);
    assert_eq!(text, "the node has stopped\n");
}

#[tokio::test]
async fn lines_are_printed_and_the_rest_is_told_elsewhere() {
    let (done, text) = against(view(), revised, "logs --app web").await;
    done.unwrap();
    // The second line's bytes are no UTF-8, and pass as they are.
    assert!(text.starts_with("[2023-11-14T22:13:20.123456789Z] [web-0] [stdout] hello\n"), "{text}");
}

mod deploying {
    use std::path::{Path, PathBuf};

    use super::*;

    fn script(dir: &Path, name: &str) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho {name}\n")).unwrap();
        path
    }

    /// Deploys `words` and a script; gives back what the engine was asked.
    async fn deploy(view: View, answer: Answer, words: &[&str]) -> (Result<(), Failure>, String, Vec<Request>) {
        let dir = tempfile::tempdir().unwrap();
        let script = script(dir.path(), "web.sh");
        let api = Api::start(view, answer).await;
        let socket = format!("unix:{}", api.client.socket().display());
        let mut line = vec!["narun", "deploy", "--api", &socket];
        line.extend(words);
        line.push(script.to_str().unwrap());
        let (done, text) = run_words(&line).await;
        (done, text, api.asked())
    }

    #[tokio::test]
    async fn by_flags_a_program_is_checked_uploaded_and_stored() {
        let words = ["--name", "web", "--tag", "v1", "--arg", "--port", "--arg", "80", "--env", "A=b=c"];
        let (done, text, asked) = deploy(settled(), revised, &words).await;
        done.unwrap();
        assert_eq!(text, "service `web` deployed: revision 2\n");
        let [Request::Deploy(check), Request::Deploy(real)] = asked.as_slice() else { panic!("{asked:?}") };
        assert!(check.dry_run && !real.dry_run, "the node checks before anything is uploaded");
        assert_eq!(real.spec.args, ["--port", "80"]);
        assert_eq!((real.spec.env[0].name.as_str(), real.spec.env[0].value.as_str()), ("A", "b=c"));
        assert_eq!(real.images[0].file_name, "web.sh");
        assert_eq!(real.images[0].platform.to_string(), "any/any");
    }

    #[tokio::test]
    async fn by_file_the_specification_is_taken_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("web.yaml");
        std::fs::write(&file, "name: web\ntag: v2\nreplicas: 2\n").unwrap();
        let words = ["--config", file.to_str().unwrap(), "--wait", "-o", "json"];
        let (done, text, asked) = deploy(settled(), revised, &words).await;
        done.unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((value["service"].as_str(), value["ready"].as_u64()), (Some("web"), Some(2)));
        assert!(matches!(&asked[1], Request::Deploy(deploy) if deploy.spec.tag == "v2"));
    }

    #[tokio::test]
    async fn a_cron_spec_is_deployed_by_flags() {
        let words = ["--name", "nightly", "--tag", "v1", "--run-mode", "cron", "--cron-schedule", "0 2 * * *"];
        let (done, text, asked) = deploy(view(), revised, &words).await;
        done.unwrap();
        assert!(text.contains("`nightly` deployed") && text.matches("T02:00:00Z").count() == 5, "{text}");
        assert!(
            matches!(&asked[1], Request::Deploy(deploy) if matches!(deploy.spec.mode, crate::spec::RunMode::Cron(_)))
        );
    }

    #[tokio::test]
    async fn a_dry_run_changes_nothing() {
        let words = ["--name", "web", "--tag", "v1", "--dry-run"];
        let (done, text, asked) = deploy(view(), revised, &words).await;
        done.unwrap();
        assert!(text.contains("nothing was changed"), "{text}");
        assert!(matches!(asked.as_slice(), [Request::Deploy(deploy)] if deploy.dry_run));
    }

    #[tokio::test]
    async fn the_next_slots_are_shown_in_the_zone_of_the_schedule() {
        let words = ["--name", "nightly", "--tag", "v1", "--cron-schedule", "0 2 * * *", "--timezone", "Asia/Tokyo"];
        let (done, text, _) = deploy(view(), revised, &[&words[..], &["--dry-run"]].concat()).await;
        done.unwrap();
        assert!(text.contains("nothing was changed"), "{text}");
        assert_eq!((text.matches("T17:00:00Z").count(), text.matches("T02:00:00+09:00  Asia/Tokyo").count()), (5, 5));
        let (done, text, _) = deploy(view(), revised, &[&words[..], &["-o", "json"]].concat()).await;
        done.unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["next"].as_array().map(Vec::len), Some(5), "{text}");
        assert_eq!(value["next"][0]["timezone"], "Asia/Tokyo");
        let (done, text, _) = deploy(view(), revised, &["--name", "web", "--tag", "v1", "-o", "json"]).await;
        done.unwrap();
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["next"], serde_json::json!([]), "a service has none");
    }

    #[tokio::test]
    async fn what_the_node_refuses_is_refused_before_the_upload() {
        let refuse: Answer = |_| Err(Refusal::new(RefusalCode::NotFound, "no node `n7`"));
        let words = ["--name", "web", "--tag", "v1", "--node", "n7"];
        let (done, _, asked) = deploy(view(), refuse, &words).await;
        let failure = done.unwrap_err();
        assert_eq!(failure.code(), 1);
        assert!(failure.text().contains("`n7`"));
        assert!(matches!(asked.as_slice(), [Request::Deploy(deploy)] if deploy.dry_run), "{asked:?}");
    }

    #[tokio::test]
    async fn wrong_flags_and_files_never_reach_a_node() {
        for (words, code, told) in [
            (vec!["--name", "We b", "--tag", "v1"], 2, "--name"),
            (vec!["--name", "web", "--tag", "v1", "--replicas", "0"], 2, "--replicas"),
            (vec!["--name", "web", "--tag", "v1", "--replicas", "-3"], 2, "--replicas"),
            (vec!["--name", "web", "--tag", "v1", "--env", "novalue"], 2, "--env"),
            (vec!["--name", "web", "--tag", "v1", "--run-mode", "cron"], 2, "--cron-schedule"),
            (vec!["--config", "/nonexistent.yaml"], 1, "/nonexistent.yaml"),
            (vec!["--config", "/tmp"], 1, "it is a directory"),
            (vec!["--name", "web", "--tag", "v1", "/nonexistent"], 1, "/nonexistent"),
        ] {
            let (done, text, asked) = deploy(view(), revised, &words).await;
            let failure = done.expect_err(told);
            assert_eq!((failure.code(), text.as_str()), (code, ""), "{words:?}: {}", failure.text());
            assert!(failure.text().contains(told), "{words:?}: {}", failure.text());
            assert!(asked.is_empty(), "{words:?}");
        }
    }

    #[tokio::test]
    async fn a_wait_that_fails_fails_the_deploy() {
        let words = ["--name", "web", "--tag", "v1", "--wait", "--timeout", "100ms"];
        let (done, text, _) = deploy(view(), revised, &words).await;
        assert_eq!((done.unwrap_err().code(), text.as_str()), (1, ""));
    }
}
