//! The scenes in the report: a table for each.

use super::{Name, Played, Run, Runs, StageFigures};
use crate::load::LATE;
use crate::plots::{thousands, title_of};
use clap::ValueEnum;
use std::collections::BTreeMap;
use std::fmt::{Result, Write};

/// Adds the section; nothing when no scene was played.
pub(crate) fn report(page: &mut String, scenes: &BTreeMap<String, Played>) -> Result {
    if scenes.is_empty() {
        return Ok(());
    }
    writeln!(
        page,
        "\n## Overload on connections that stay\n\n![Useful replies in each second of a surge](img/surge.svg)\n\n\
         Most clients keep their connections, so this is how an overload usually comes. Unless a scene says otherwise \
         each request takes 1 ms of CPU, the server has one core and the clients have the others, and a client waits \
         a second for its reply. A reply after that is of no use. *Capacity* is what the server's cores can do: the CPU \
         time of a request, measured with the one-thread loop. *Refused* are requests whose connection was reset or closed, *told within* is the time in which 99 \
         of 100 of them were, *gave up* are those whose client left. Of several runs the tables show the one with the middle sum. tidegate runs with its defaults; \
         the peers listen with a backlog of 4096."
    )?;
    let names = Name::value_variants().iter().filter_map(ValueEnum::to_possible_value);
    for name in names {
        if let Some(played) = scenes.get(name.get_name()) {
            table(page, played)?;
        }
    }
    Ok(())
}

/// A scene: its title, what is done, and a table.
pub(crate) fn table(page: &mut String, played: &Played) -> Result {
    let (from, count) = played.judged_seconds();
    write!(page, "\n### {}\n\n{}", played.title, played.what)?;
    match played.capacity {
        Some(capacity) => writeln!(page, " Capacity: {} a second.", thousands(capacity))?,
        None => writeln!(page)?,
    }
    writeln!(
        page,
        "\n| server | clients | useful in each second | answered | within 250 ms | p50 ms | p90 ms | p99 ms | slowest ms \
         | refused | told within ms | gave up |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    )?;
    let mut late = false;
    for runs in &played.servers {
        let Some(run) = middle(runs, from, count) else {
            let reason = runs.missing.as_deref().unwrap_or("not measured");
            writeln!(page, "| {} | | {reason} | | | | | | | | | |", title_of(&runs.server))?;
            continue;
        };
        for group in &run.groups {
            let stage = &group.stages[played.judged];
            let useful = group.seconds.iter().skip(from).take(count);
            let useful: Vec<String> = useful.map(|second| second.useful.to_string()).collect();
            let percent = |share: Option<f64>| match share {
                Some(share) => format!("{:.1} %", share * 100.0),
                None => String::new(),
            };
            let millis = |seconds: f64| match stage.useful {
                0 => String::new(),
                _ => format!("{:.0}", seconds * 1e3),
            };
            let told = match stage.refused() {
                0 => String::new(),
                _ => format!("{:.0}", stage.told_p99 * 1e3),
            };
            late |= stage.late_p99 > LATE.as_secs_f64();
            let mark = if stage.late_p99 > LATE.as_secs_f64() { "*" } else { "" };
            writeln!(
                page,
                "| {} | {} | {}{mark} | {} | {} | {} | {} | {} | {} | {} | {told} | {} |",
                title_of(&runs.server),
                group.name,
                useful.join(" "),
                percent(stage.share()),
                percent(stage.prompt_share()),
                millis(stage.p50),
                millis(stage.p90),
                millis(stage.p99),
                millis(stage.max),
                thousands(stage.refused() as f64),
                thousands(stage.timeout as f64),
            )?;
        }
    }
    left_by_clients(page, played)?;
    refusals(page, played)?;
    endings(page, played)?;
    if late {
        let late = LATE.as_millis();
        writeln!(
            page,
            "\n\\* The client itself was late: one request in a hundred began {late} ms or more after it was due."
        )?;
    }
    Ok(())
}

/// What the clients left of processors that they share with the server.
fn left_by_clients(page: &mut String, played: &Played) -> Result {
    if played.shared.is_none() {
        return Ok(());
    }
    let (from, count) = played.judged_seconds();
    for runs in &played.servers {
        let Some(possible) = middle(runs, from, count).and_then(|run| played.possible(run)) else { continue };
        let possible: Vec<String> = possible.iter().map(|rate| format!("{rate:.0}")).collect();
        let server = title_of(&runs.server);
        writeln!(
            page,
            "\nWhat the clients of {server} left could do in each second: {}.",
            possible.join(" ")
        )?;
    }
    Ok(())
}

/// What those saw who were refused over HTTP.
fn refusals(page: &mut String, played: &Played) -> Result {
    let (from, count) = played.judged_seconds();
    for runs in &played.servers {
        for group in middle(runs, from, count).iter().flat_map(|run| &run.groups) {
            if let Some(saw) = saw(&group.stages[played.judged]) {
                writeln!(page, "\nThe refused of {}: {saw}.", title_of(&runs.server))?;
            }
        }
    }
    Ok(())
}

/// What refused clients of HTTP saw; none where nobody was answered.
pub(super) fn saw(stage: &StageFigures) -> Option<String> {
    if stage.answered == 0 {
        return None;
    }
    let hint = match (stage.hinted, stage.answered) {
        (0, _) => "without `Retry-After`".to_owned(),
        (some, all) if some == all => format!("all with `Retry-After`, {} s at most", stage.hint_max),
        (some, _) => {
            format!("{} of them with `Retry-After`, {} s at most", thousands(some as f64), stage.hint_max)
        }
    };
    let answers = format!("{} answers of refusal, {hint}", thousands(stage.answered as f64));
    Some(match stage.reset + stage.closed {
        0 => answers,
        ended => format!("{answers}; {} were reset or closed", thousands(ended as f64)),
    })
}

/// How the servers ended that were told to.
fn endings(page: &mut String, played: &Played) -> Result {
    for runs in &played.servers {
        for said in runs.runs.iter().filter_map(|run| run.ended.as_deref()).take(1) {
            writeln!(page, "\n{}, told to end, said: {said}.", title_of(&runs.server))?;
        }
    }
    Ok(())
}

/// The run with the middle sum of useful replies.
pub(super) fn middle(runs: &Runs, from: usize, count: usize) -> Option<&Run> {
    let mut sorted: Vec<(f64, &Run)> =
        runs.runs.iter().map(|run| (run.useful(from, count).iter().sum(), run)).collect();
    sorted.sort_by(|one, other| one.0.total_cmp(&other.0));
    sorted.get(sorted.len().saturating_sub(1) / 2).map(|(_, run)| *run)
}

#[cfg(test)]
mod tests {
    use super::super::{GroupFigures, StageFigures, picture};
    use super::*;
    use crate::scene::tally::Second;

    /// A scene of one second of calm and two of a surge, with this number of useful replies in each.
    fn played(useful: [u32; 2]) -> Played {
        let second = |useful| Second { asked: 10, useful, refused: 1, timeout: 0 };
        let stage =
            StageFigures { seconds: 2.0, asked: 20, useful: 11, prompt: 10, p99: 0.3, ..Default::default() };
        let group = GroupFigures {
            name: "all".into(),
            joined: 8,
            dropped_idle: 0,
            seconds: [5, useful[0], useful[1]].map(second).to_vec(),
            stages: vec![StageFigures::default(), stage],
        };
        let ended = Some("drained 1 connection in 0.1 s, cut 0".to_owned());
        let client_cpu = vec![0.5; 3];
        let run = Run { groups: vec![group], server_cpu: 1.0, client_cpu, peak_rss: 1, threads: 1, ended };
        let missing = Some("not installed".to_owned());
        Played {
            title: "Surge".into(),
            what: "Many ask.".into(),
            capacity: Some(10.0),
            shared: None,
            stages: vec![("calm".into(), 1.0), ("surge".into(), 2.0)],
            judged: 1,
            servers: vec![
                Runs { server: "tidegate".into(), runs: vec![run], missing: None },
                Runs { server: "python".into(), runs: Vec::new(), missing },
            ],
        }
    }

    #[test]
    fn a_scene_has_a_line_for_each_server_and_says_what_was_not_measured() {
        let scenes = BTreeMap::from([("surge".to_owned(), played([9, 2]))]);
        let mut page = String::new();
        report(&mut page, &scenes).unwrap();
        let line = "| tidegate | all | 9 2 | 55.0 % | 50.0 % | 0 | 0 | 300 | 0 | 0 |  | 0 |";
        assert!(page.contains(line), "{page}");
        assert!(page.contains("| Python | | not installed |"), "{page}");
        assert!(page.contains("tidegate, told to end, said: drained 1 connection"), "{page}");
        let goals = crate::scene::goals(&scenes);
        let worst = goals.iter().find(|goal| goal.figure.contains("worst second")).unwrap();
        assert_eq!(worst.values, [0.2]);
        let shared = Played { shared: Some(2.0), ..played([9, 2]) };
        let mut page = String::new();
        table(&mut page, &shared).unwrap();
        assert!(page.contains("What the clients of tidegate left could do in each second: 8 8."), "{page}");
        let worst = crate::scene::goals(&BTreeMap::from([("surge-cores".to_owned(), shared)]));
        let worst = worst.iter().find(|goal| !goal.values.is_empty()).unwrap();
        assert_eq!(worst.values, [2.0 / 7.5], "the clients took a quarter of the two processors");
        let pictures = picture::pictures(&scenes);
        assert!(
            pictures[0].1.contains("Useful replies in the worst second: tidegate 2."),
            "{}",
            pictures[0].1
        );
    }
}
