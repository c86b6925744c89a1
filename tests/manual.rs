//! Manual pages and completions: real readers and real shells take them, and nothing that the program can do is
//! missing.

mod support;

use std::path::PathBuf;
use std::process::Output;
use support::{command, finish, path, run};

fn text(output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {out}{err}", output.status);
    out.into_owned()
}

/// An empty folder of this test.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("tidegate-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Each page that there is: its file, and the words of its command.
fn pages(name: &str) -> Vec<(PathBuf, Vec<String>)> {
    let folder = folder(name);
    text(&run(["man", "--dir", folder.to_str().unwrap()]));
    let files = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let pages = files.map(|file| {
        let stem = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let words = stem.split('-').skip(1).map(str::to_owned).collect();
        (file, words)
    });
    let pages: Vec<_> = pages.collect();
    assert!(pages.len() > 8, "{pages:?}");
    pages
}

/// The options that the help of a command lists.
fn options(words: &[String]) -> Vec<String> {
    let help = text(&finish(command(path()).args(words).arg("--help")));
    // A continued line may begin with an option that it only mentions; it is further to the right.
    let listed = help.lines().filter(|line| line.trim_start().starts_with('-') && indent(line) <= 6);
    let named: Vec<_> = listed.filter_map(name_in).collect();
    assert!(named.contains(&"--help".to_owned()), "{help}");
    named
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the option that a line lists, without what may stand behind it.
fn name_in(line: &str) -> Option<String> {
    let name = line.split_whitespace().find(|word| word.starts_with("--"))?;
    let end = name.find(|c: char| c != '-' && !c.is_ascii_alphanumeric());
    Some(name[..end.unwrap_or(name.len())].to_owned())
}

/// A page as a terminal shows it, without bold and without the filling of lines.
fn rendered(file: &std::path::Path) -> String {
    let shown = text(&finish(command("mandoc").args(["-T", "ascii", "-O", "width=200"]).arg(file)));
    let mut plain = String::new();
    for letter in shown.chars() {
        match letter {
            // What a terminal prints over.
            '\u{8}' => drop(plain.pop()),
            letter => plain.push(letter),
        }
    }
    plain
}

#[test]
fn every_command_has_a_page_and_every_option_is_in_it() {
    for (file, words) in pages("man-options") {
        let page = rendered(&file);
        for option in options(&words) {
            let listed = page.lines().filter(|line| line.trim_start().starts_with('-')).filter_map(name_in);
            let listed = listed.collect::<Vec<_>>().contains(&option);
            assert!(listed, "{option} is not in {}:\n{page}", file.display());
        }
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS"] {
            assert!(page.lines().any(|line| line == heading), "{heading} in {}", file.display());
        }
    }
}

#[test]
fn both_readers_of_manual_pages_take_them_without_an_error() {
    for (file, _) in pages("man-readers") {
        let lint = finish(command("mandoc").args(["-T", "lint", "-W", "error"]).arg(&file));
        assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
        let groff = finish(command("groff").args(["-man", "-Tutf8", "-ww", "-z"]).arg(&file));
        let said = String::from_utf8_lossy(&groff.stderr).into_owned();
        // Where a word is longer than the line, groff says so.
        let wrong: Vec<_> = said.lines().filter(|line| !line.contains("cannot adjust line")).collect();
        assert!(groff.status.success() && wrong.is_empty(), "{}: {wrong:?}", file.display());
    }
}

#[test]
fn a_page_is_printed_by_the_name_of_its_command() {
    let page = text(&run(["man", "stress", "compare"]));
    assert!(page.starts_with(".TH TIDEGATE-STRESS-COMPARE 1 "), "{page}");
    assert!(text(&run(["man"])).starts_with(".TH TIDEGATE 1 "));
    let unknown = run(["man", "dance"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).starts_with("tidegate: `dance` is not a command"));
}

#[test]
fn every_option_is_in_the_completions_of_each_shell() {
    let scripts = ["bash", "zsh", "fish"].map(|shell| (shell, text(&run(["completions", shell]))));
    for (_, words) in pages("completions") {
        for option in options(&words) {
            // One whose value may be left out is listed as `--option[=VALUE]`.
            let option = option.split('[').next().unwrap_or(&option).to_owned();
            for (shell, script) in &scripts {
                let name = if *shell == "fish" { format!("-l {}", &option[2..]) } else { option.clone() };
                let ends = |at: usize| {
                    !script[at + name.len()..].starts_with(|c: char| c == '-' || c.is_alphanumeric())
                };
                let known = script.match_indices(&name).any(|(at, _)| ends(at));
                assert!(known, "{option} of {words:?} is not in the completions of {shell}");
            }
        }
    }
}

/// What a shell offers for a line that is typed so far.
fn offered(shell: &str, script: &str, line: &str) -> String {
    text(&finish(command(shell).args(["-c", script, "test", line])))
}

#[test]
fn a_shell_completes_an_option_and_a_command() {
    let folder = folder("shells");
    for shell in ["bash", "zsh", "fish"] {
        std::fs::write(folder.join(format!("_{shell}")), text(&run(["completions", shell]))).unwrap();
    }
    std::fs::rename(folder.join("_zsh"), folder.join("_tidegate")).unwrap();
    let bash = format!(
        "source {}; COMP_WORDS=($1); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
         _tidegate tidegate \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; echo \"${{COMPREPLY[@]}}\"",
        folder.join("_bash").display()
    );
    let fish = format!("source {}; complete -C $argv[2]", folder.join("_fish").display());
    for (line, word) in [
        ("tidegate --work", "--workers"),
        ("tidegate stress com", "compare"),
        ("tidegate stress --find", "--find-max"),
    ] {
        assert!(offered("bash", &bash, line).split_whitespace().any(|offer| offer == word), "bash: {line}");
        assert!(offered("fish", &fish, line).split_whitespace().any(|offer| offer == word), "fish: {line}");
    }
    assert!(offered("bash", &bash, "tidegate completions z").contains("zsh"));
    let zsh = format!(
        "fpath=({} $fpath); autoload -Uz compinit; compinit -u -D; autoload +X _tidegate && echo $_comps[tidegate]",
        folder.display()
    );
    assert_eq!(text(&finish(command("zsh").args(["-f", "-c", &zsh]))).trim(), "_tidegate");
    std::fs::remove_dir_all(folder).unwrap();
}
