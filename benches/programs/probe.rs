//! The program that the benchmarks deploy: says when it runs, and then does nothing.

use std::time::{Duration, SystemTime};

fn main() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock past 1970").as_nanos();
    let file = std::env::args().nth(1).expect("the file to write the time into");
    // Written aside and renamed, so that whoever waits for it finds it whole.
    std::fs::write(format!("{file}.part"), now.to_string()).expect("the folder of the benchmark");
    std::fs::rename(format!("{file}.part"), &file).expect("the same folder");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
