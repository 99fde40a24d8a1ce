//! The keeper with real processes.

use narun::exec::logs::frame::Stream;

use crate::host::Host;

#[tokio::test]
async fn exit_codes_and_signals_are_reported_exactly() {
    let mut host = Host::new();
    let mut node = host.node().await;
    assert_eq!(node.held, []);
    let plan = host.script("seven", "echo out; echo err >&2; exit 7");
    assert_eq!(node.run(&plan).await, (Some(7), None));
    assert_eq!(host.text(&plan, Stream::Stdout), ["out"]);
    assert_eq!(host.text(&plan, Stream::Stderr), ["err"]);
    let plan = host.script("fine", "exit 0");
    assert_eq!(node.run(&plan).await, (Some(0), None));
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGSEGV, libc::SIGRTMIN() + 3] {
        let plan = host.script("dies", &format!("kill -{signal} $$; sleep 60"));
        assert_eq!(node.run(&plan).await, (None, Some(signal)), "signal {signal}");
    }
}
