#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| integration_fuzz::target("netlink").expect("a target")(data));
