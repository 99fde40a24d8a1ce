use std::io::Read;

use proptest::prelude::*;

use super::*;

fn platforms(head: &[u8]) -> Vec<String> {
    let detected = detect(head).unwrap_or_else(|e| panic!("{e}: {head:02x?}"));
    detected.platforms.iter().map(ToString::to_string).collect()
}

fn refusal(head: &[u8]) -> String {
    match detect(head) {
        Ok(detected) => panic!("taken as {detected:?}: {head:02x?}"),
        Err(error) => error.to_string(),
    }
}

/// An ELF header: class 1 (32 bits) or 2 (64), byte order 1 (little) or 2 (big).
fn elf(class: u8, order: u8, os_abi: u8, file_type: u16, machine: u16) -> Vec<u8> {
    let number = |number: u16| if order == 1 { number.to_le_bytes() } else { number.to_be_bytes() };
    let mut head = vec![0; if class == 1 { 52 } else { 64 }];
    head[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order, 1, os_abi]);
    head[16..18].copy_from_slice(&number(file_type));
    head[18..20].copy_from_slice(&number(machine));
    head[25] = 0x10;
    head
}

fn macho(magic: [u8; 4], endian: Endian, processor: u32, file_type: u32) -> Vec<u8> {
    let number = |number: u32| if endian == Endian::Little { number.to_le_bytes() } else { number.to_be_bytes() };
    let mut head = vec![0; 32];
    head[..4].copy_from_slice(&magic);
    head[4..8].copy_from_slice(&number(processor));
    head[12..16].copy_from_slice(&number(file_type));
    head
}

fn fat(magic: u32, slice_len: usize, processors: &[u32]) -> Vec<u8> {
    let mut head = magic.to_be_bytes().to_vec();
    head.extend(u32::try_from(processors.len()).unwrap().to_be_bytes());
    for processor in processors {
        head.extend(processor.to_be_bytes());
        head.extend(vec![0; slice_len - 4]);
    }
    head
}

fn pe(offset: u32, machine: u16, traits: u16) -> Vec<u8> {
    let at = usize::try_from(offset).unwrap();
    let mut head = vec![0; at + 24];
    head[..2].copy_from_slice(b"MZ");
    head[0x3c..0x40].copy_from_slice(&offset.to_le_bytes());
    head[at..at + 4].copy_from_slice(b"PE\0\0");
    head[at + 4..at + 6].copy_from_slice(&machine.to_le_bytes());
    head[at + 22..at + 24].copy_from_slice(&traits.to_le_bytes());
    head
}

const AMD64: u32 = 0x0100_0007;
const ARM64: u32 = 0x0100_000c;

#[test]
fn elf_programs_are_told_by_system_and_processor() {
    for (class, order, os_abi, machine, platform) in [
        (2, 1, 0, 62, "linux/amd64"),
        (2, 1, 3, 62, "linux/amd64"),
        (2, 1, 0, 183, "linux/arm64"),
        (2, 1, 0, 243, "linux/riscv64"),
        (1, 1, 0, 3, "linux/386"),
        (1, 1, 0, 40, "linux/arm"),
        (2, 1, 0, 21, "linux/ppc64le"),
        (2, 2, 0, 21, "linux/ppc64"),
        (2, 2, 0, 22, "linux/s390x"),
        (2, 1, 0, 258, "linux/loong64"),
        (1, 2, 0, 8, "linux/mips"),
        (1, 1, 0, 8, "linux/mipsle"),
        (2, 2, 0, 8, "linux/mips64"),
        (2, 1, 0, 8, "linux/mips64le"),
        (2, 1, 9, 62, "freebsd/amd64"),
        (2, 1, 9, 183, "freebsd/arm64"),
        (2, 1, 12, 62, "openbsd/amd64"),
        (2, 1, 2, 62, "netbsd/amd64"),
        (2, 1, 6, 62, "solaris/amd64"),
        (2, 2, 6, 43, "solaris/sparc64"),
    ] {
        for file_type in [2, 3] {
            assert_eq!(platforms(&elf(class, order, os_abi, file_type, machine)), [platform]);
        }
    }
}

#[test]
fn elf_files_that_are_no_programs_are_refused() {
    assert_eq!(refusal(&elf(2, 1, 0, 1, 62)), "it is an object file (it was not linked), not a program");
    assert_eq!(refusal(&elf(2, 1, 0, 4, 62)), "it is a core dump, not a program");
    assert_eq!(refusal(&elf(2, 1, 0, 77, 62)), "it is an ELF file of type 77, not a program");
    let mut library = elf(2, 1, 0, 3, 62);
    library[24..32].fill(0);
    assert_eq!(refusal(&library), "it is a shared library, not a program");
    assert_eq!(refusal(&elf(2, 3, 0, 2, 62)), "it is a damaged ELF file (byte order 3), not a program");
    assert_eq!(refusal(&elf(7, 1, 0, 2, 62)), "it is a damaged ELF file (class 7), not a program");
    assert_eq!(
        refusal(&elf(2, 1, 0, 2, 6_000)),
        "it is a program for linux on the processor with ELF number 6000 (64 bits, little endian), which narun does not know"
    );
    // 32-bit pointers on a 64-bit processor (x32): not what `linux/amd64` means.
    assert!(refusal(&elf(1, 1, 0, 2, 62)).contains("ELF number 62 (32 bits, little endian)"));
    assert!(refusal(&elf(2, 1, 200, 2, 62)).contains("the system with ELF number 200"));
}

#[test]
fn macho_programs_are_told_by_processor() {
    let little_64 = [0xcf, 0xfa, 0xed, 0xfe];
    let little_32 = [0xce, 0xfa, 0xed, 0xfe];
    let big_64 = [0xfe, 0xed, 0xfa, 0xcf];
    let big_32 = [0xfe, 0xed, 0xfa, 0xce];
    assert_eq!(platforms(&macho(little_64, Endian::Little, AMD64, 2)), ["darwin/amd64"]);
    assert_eq!(platforms(&macho(little_64, Endian::Little, ARM64, 2)), ["darwin/arm64"]);
    assert_eq!(platforms(&macho(little_32, Endian::Little, 7, 2)), ["darwin/386"]);
    assert_eq!(platforms(&macho(big_32, Endian::Big, 0x12, 2)), ["darwin/ppc"]);
    assert_eq!(platforms(&macho(big_64, Endian::Big, 0x0100_0012, 2)), ["darwin/ppc64"]);

    assert_eq!(refusal(&macho(little_64, Endian::Little, ARM64, 6)), "it is a shared library, not a program");
    assert!(refusal(&macho(little_64, Endian::Little, ARM64, 1)).contains("object file"));
    assert!(
        refusal(&macho(little_64, Endian::Little, 99, 2)).contains("darwin on the processor with Mach-O number 0x63")
    );
}

#[test]
fn fat_macho_programs_have_several_platforms() {
    assert_eq!(platforms(&fat(0xcafe_babe, 20, &[AMD64, ARM64])), ["darwin/amd64", "darwin/arm64"]);
    assert_eq!(platforms(&fat(0xcafe_babf, 32, &[AMD64, ARM64])), ["darwin/amd64", "darwin/arm64"]);
    assert_eq!(platforms(&fat(0xcafe_babe, 20, &[ARM64, ARM64, 99])), ["darwin/arm64"]);
    assert!(refusal(&fat(0xcafe_babe, 20, &[99])).contains("Mach-O number 0x63"));
    assert_eq!(refusal(&fat(0xcafe_babe, 20, &[])), "it is a fat Mach-O file with 0 slices, not a program");
    assert_eq!(refusal(&fat(0xcafe_babf, 32, &[AMD64; 31])), "it is a fat Mach-O file with 31 slices, not a program");
    let cut = &fat(0xcafe_babe, 20, &[AMD64, ARM64])[..28];
    assert_eq!(refusal(cut), "it is cut off: its fat Mach-O header is not whole");
}

#[test]
fn a_java_class_is_no_fat_macho() {
    for major in [45_u16, 52, 65, 200] {
        let mut class = vec![0xca, 0xfe, 0xba, 0xbe, 0, 0];
        class.extend(major.to_be_bytes());
        class.extend([0; 100]);
        assert!(refusal(&class).starts_with("it is a Java class; wanted an ELF"), "{major}");
    }
}

#[test]
fn pe_programs_are_told_by_processor() {
    for (machine, platform) in
        [(0x8664, "windows/amd64"), (0xaa64, "windows/arm64"), (0x014c, "windows/386"), (0x01c4, "windows/arm")]
    {
        assert_eq!(platforms(&pe(0x80, machine, 0x0022)), [platform]);
        assert_eq!(platforms(&pe(0xf8, machine, 0x0102)), [platform]);
    }
    assert_eq!(refusal(&pe(0x80, 0x8664, 0x2022)), "it is a Windows library (DLL), not a program");
    assert_eq!(refusal(&pe(0x80, 0x8664, 0x0020)), "it is a PE file that was not linked, not a program");
    assert!(refusal(&pe(0x80, 0x0200, 0x0002)).contains("windows on the processor with PE number 0x0200"));
    let mut dos = pe(0x80, 0x8664, 0x0022);
    dos[0x80] = b'N';
    assert!(refusal(&dos).contains("a DOS program"));
    let mut far = pe(0x80, 0x8664, 0x0022);
    far[0x3c..0x40].fill(0xff);
    assert!(refusal(&far).contains("a DOS program"));
}

#[test]
fn headers_that_end_early_are_told() {
    for (whole, what) in [
        (elf(2, 1, 0, 2, 62), "ELF"),
        (elf(1, 1, 0, 2, 3), "ELF"),
        (macho([0xcf, 0xfa, 0xed, 0xfe], Endian::Little, ARM64, 2)[..16].to_vec(), "Mach-O"),
        (pe(0x80, 0x8664, 0x0022), "PE"),
    ] {
        assert!(detect(&whole).is_ok());
        for len in 4..whole.len() {
            let cut = refusal(&whole[..len]);
            assert_eq!(cut, format!("it is cut off: its {what} header is not whole"), "{len} bytes");
        }
    }
}

#[test]
fn scripts_run_on_any_platform() {
    for (script, interpreter) in [
        ("#!/bin/sh\necho hi\n", "/bin/sh"),
        ("#!/bin/sh", "/bin/sh"),
        ("#! /usr/bin/env -S python3 -u\nprint()\n", "/usr/bin/env"),
        ("#!\t/bin/sh\t-e\n", "/bin/sh"),
        ("#!/opt/größe\n", "/opt/größe"),
    ] {
        let detected = detect(script.as_bytes()).unwrap();
        assert_eq!(detected.platforms, [Platform::any()]);
        assert_eq!(detected.interpreter.as_deref(), Some(interpreter));
    }
    let long = format!("#!/{}\n", "x".repeat(300));
    for (script, reason) in [
        ("#!", "names no interpreter"),
        ("#!\n/bin/sh", "names no interpreter"),
        ("#!  \t \necho", "names no interpreter"),
        ("#!python3\n", "names `python3`, wanted a path from the root"),
        ("#!/bin/sh\r\necho\r\n", "ends in a carriage return"),
        ("#!/bin/sh -e\r\necho\r\n", "ends in a carriage return"),
        ("#!/bin/\0sh\n", "holds a NUL character"),
        (&long, "is longer than the 256 bytes"),
    ] {
        let refusal = refusal(script.as_bytes());
        assert!(refusal.starts_with("its `#!` line ") && refusal.contains(reason), "{script:?}: {refusal}");
    }
    assert!(refusal(b"#!/bin/\xff\n").contains("is no text"));
}

#[test]
fn all_else_is_refused_by_what_it_is() {
    let mut tar = vec![b'a'; 257];
    tar[100..].fill(0);
    tar.extend(b"ustar\x0000");
    for (head, what) in [
        (&b"\x1f\x8b\x08\0"[..], "a gzip archive"),
        (b"PK\x03\x04\x14", "a zip archive"),
        (b"\xfd7zXZ\0\0", "an xz archive"),
        (b"\x28\xb5\x2f\xfd\x24", "a zstd archive"),
        (b"!<arch>\ndebian-binary", "an ar archive"),
        (b"\0asm\x01\0\0\0", "a WebAssembly module"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "a script with a byte order mark"),
        (&tar, "a tar archive"),
        (b"echo hello\n", "text without `#!` (it begins with `echo hello`)"),
        (b"\nname: web\n", "text without `#!` (it begins with `name: web`)"),
        ("größe".as_bytes(), "text without `#!` (it begins with `größe`)"),
        (&"größe".as_bytes()[..3], "text without `#!` (it begins with `gr"),
        (b"\x01\x02\xff", "of no known format (it begins with the bytes 01 02 ff)"),
        (b"\xff", "of no known format (it begins with the bytes ff)"),
        (b"\0\0\0\0\0\0\0\0\0\0", "of no known format (it begins with the bytes 00 00 00 00 00 00 00 00)"),
        (b"\xca\xfe\xba\xbe", "cut off"),
    ] {
        let refusal = refusal(head);
        assert!(refusal.contains(what), "{refusal}");
    }
    assert_eq!(refusal(b""), "it is empty");
}

#[test]
fn this_very_program_is_told() {
    let mut head = Vec::new();
    std::fs::File::open("/proc/self/exe").unwrap().take(HEAD_LEN as u64).read_to_end(&mut head).unwrap();
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    assert_eq!(platforms(&head), [format!("linux/{arch}")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_bytes_make_it_panic(
        start in prop::sample::select(vec![
            &b""[..], b"\x7fELF", b"MZ", b"#!", b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa\xce",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        if let Ok(detected) = detect(&[start, &rest].concat()) {
            prop_assert!(!detected.platforms.is_empty());
        }
    }

    /// Headers that are whole but for a few bytes get further than random bytes.
    #[test]
    fn no_damaged_header_makes_it_panic(which in 0_usize..5, damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        let mut head = match which {
            0 => elf(2, 1, 0, 2, 62),
            1 => elf(1, 2, 0, 3, 8),
            2 => macho([0xcf, 0xfa, 0xed, 0xfe], Endian::Little, ARM64, 2),
            3 => fat(0xcafe_babe, 20, &[AMD64, ARM64]),
            _ => pe(0x80, 0x8664, 0x0022),
        };
        for (at, byte) in damage {
            let at = at % head.len();
            head[at] = byte;
        }
        let _ = detect(&head);
    }
}
