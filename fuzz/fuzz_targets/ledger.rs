#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    narun::decoders::understands("ledger", bytes);
});
