//! Tells which architecture a program or library is for.
//!
//! Source: the ELF specification, "ELF Header"; machine numbers from its
//! registry; names from Go's `GOARCH`, which OCI's image-spec asks for.

/// All names that [`architecture`] knows.
pub const ARCHITECTURES: [&str; 9] =
    ["386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"];

/// How many of a file's first bytes are needed.
pub const HEADER_SIZE: usize = 20;

/// Go's name of the architecture that a program or library is for; `None` for
/// everything else, object files too.
#[must_use]
pub fn architecture(start: &[u8]) -> Option<&'static str> {
    let header: &[u8; HEADER_SIZE] = start.get(..HEADER_SIZE)?.try_into().ok()?;
    if &header[..4] != b"\x7fELF" {
        return None;
    }
    let little = header[5] == 1;
    let number = |at: usize| {
        let bytes = [header[at], header[at + 1]];
        if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) }
    };
    const EXECUTABLE: u16 = 2;
    const SHARED: u16 = 3;
    if !matches!(number(16), EXECUTABLE | SHARED) {
        return None;
    }
    let wide = header[4] == 2;
    match (number(18), wide, little) {
        (3, false, true) => Some("386"),
        (8, true, true) => Some("mips64le"),
        (21, true, true) => Some("ppc64le"),
        (22, true, false) => Some("s390x"),
        (40, false, true) => Some("arm"),
        (62, true, true) => Some("amd64"),
        (183, true, true) => Some("arm64"),
        (243, true, true) => Some("riscv64"),
        (258, true, true) => Some("loong64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::architecture;

    #[test]
    fn this_test_is_for_the_machine_that_runs_it() {
        let program = std::fs::read(std::env::current_exe().expect("known")).expect("readable");
        let expected = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        assert_eq!(architecture(&program), Some(expected));
    }

    #[test]
    fn other_files_are_for_none() {
        for start in [&b""[..], b"#!/bin/sh\n and more than that", b"\x7fELF", &[0; 64]] {
            assert_eq!(architecture(start), None);
        }
    }
}
