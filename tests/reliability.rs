//! docs/reliability.md: what hostile thing is held by which test, and what the last run of it saw. The tests keep their
//! figures in target/figures/; `UPDATE=1 cargo test --test reliability` writes the page from them.

mod support;

use std::fmt::Write;
use support::FIGURES;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");

/// A file, and tests in it.
type In = (&'static str, &'static [&'static str]);

/// What is hostile, and the tests that hold against it.
const HELD: &[(&str, &[In])] = &[
    (
        "Connect flood; clients that connect and leave",
        &[
            (
                "ordeal",
                &[
                    "a_flood_of_connections_that_stay_is_refused_past_the_limit",
                    "clients_that_connect_and_leave_cost_others_nothing",
                ],
            ),
            (
                "conservation",
                &["while_newcomers_are_refused", "while_newcomers_wait", "while_the_oldest_are_dropped"],
            ),
            (
                "refused",
                &["nobody_hangs_for_a_connect_timeout_where_1500_a_second_meet_four_workers_that_sleep"],
            ),
        ],
    ),
    (
        "Clients that leave or reset in the backlog, the queue, a turn, a flush, while lingering, in a drain",
        &[
            (
                "ordeal",
                &["resets_at_each_stage_leave_nothing_behind", "resets_within_a_drain_do_not_hold_it"],
            ),
            (
                "overload",
                &[
                    "who_left_while_waiting_gets_no_turn",
                    "a_client_that_never_ends_its_half_is_not_lingered_for_for_ever",
                ],
            ),
            (
                "drain",
                &["no_client_in_a_request_loop_is_reset", "replies_that_wait_for_their_reader_are_flushed"],
            ),
        ],
    ),
    (
        "Half-open handshakes, half requests, half-closed connections, silence",
        &[
            (
                "ordeal",
                &[
                    "handshakes_without_their_last_step_hold_nothing_of_the_server",
                    "half_closed_clients_are_answered_and_end",
                ],
            ),
            (
                "slow_clients",
                &[
                    "silent_clients_hold_no_worker_and_end_in_good_order",
                    "half_a_request_holds_no_worker_and_has_a_deadline",
                ],
            ),
            (
                "http_abuse",
                &[
                    "clients_that_are_silent_or_stop_within_a_request_delay_nobody",
                    "clients_that_stop_within_a_handshake_or_a_frame_of_a_websocket_delay_nobody",
                ],
            ),
        ],
    ),
    (
        "A byte at a time",
        &[
            ("slow_clients", &["a_request_that_trickles_has_a_total_deadline"]),
            ("late", &["none_of_two_hundred_clients_that_drip_is_ended_late_on_a_busy_core"]),
            (
                "hostile",
                &["two_thousand_clients_of_a_byte_a_second_both_ways_delay_nobody_and_cost_no_thread"],
            ),
            ("tls_abuse", &["clients_that_send_their_first_message_a_byte_at_a_time_delay_nobody"]),
        ],
    ),
    (
        "Readers that stop",
        &[
            ("ordeal", &["readers_that_stop_are_ended_and_hold_no_worker"]),
            (
                "slow_clients",
                &[
                    "clients_that_never_read_hold_no_worker_and_have_a_deadline",
                    "replies_for_all_have_a_limit_and_those_within_it_are_whole",
                ],
            ),
        ],
    ),
    (
        "Lines and requests without an end",
        &[
            ("ordeal", &["lines_without_an_end_are_ended_at_their_limit"]),
            (
                "slow_clients",
                &[
                    "half_read_lines_have_a_limit_together_and_those_within_it_are_answered",
                    "clients_that_send_thousands_of_requests_at_once_hold_no_worker",
                ],
            ),
        ],
    ),
    (
        "Ten rounds of 10,000 connections",
        &[
            ("hostile", &["ten_rounds_of_ten_thousand_connections_leave_nothing_behind"]),
            ("parking", &["ten_thousand_open_connections_cost_no_thread_little_memory_and_no_time"]),
        ],
    ),
    (
        "Descriptors gone and back",
        &[
            ("ordeal", &["descriptors_that_are_gone_and_come_back_cost_nobody_his_connection"]),
            (
                "exhaustion",
                &[
                    "a_small_limit_of_open_files_makes_a_small_server",
                    "descriptors_that_run_out_below_it_neither_end_it_nor_make_it_spin",
                    "a_limit_that_comes_and_goes_leaves_nothing_behind",
                ],
            ),
            ("admin_descriptors", &["it_answers_without_a_free_descriptor_again_and_again"]),
            ("agent", &["it_answers_when_the_process_has_no_descriptor_left"]),
        ],
    ),
    (
        "Threads refused by the system",
        &[("environment", &["a_thread_that_the_system_does_not_give_is_named_in_one_line"])],
    ),
    (
        "Memory: the ceiling, `prlimit --as`, a container",
        &[
            ("ordeal", &["an_end_of_address_space_while_it_serves_ends_no_client_that_behaves"]),
            (
                "memory",
                &[
                    "the_printed_ceiling_holds_whatever_clients_leave_half_done",
                    "a_server_without_address_space_ends_connections_and_not_itself",
                    "in_a_container_of_its_ceiling_and_16_mib_nothing_is_killed_whatever_it_is_made_to_hold",
                ],
            ),
        ],
    ),
    (
        "SIGSTOP, then SIGCONT",
        &[
            ("ordeal", &["five_seconds_of_standing_still_end_nobody"]),
            (
                "paused",
                &[
                    "idle_clients_that_asked_in_time_are_answered",
                    "half_requests_whose_rest_came_in_time_are_answered",
                ],
            ),
            ("supervisor", &["a_gate_that_stands_still_does_not_answer_the_watchdog"]),
        ],
    ),
    ("Steps of the clock", &[("hostile", &["a_clock_that_steps_by_days_ends_nobody_early_or_late"])]),
    (
        "Panics in every hook, `Drop` included",
        &[(
            "panics",
            &["in_verify", "in_connect", "in_a_turn", "in_finish", "in_drop", "in_finish_and_then_in_drop"],
        )],
    ),
    (
        "A handler that never returns",
        &[
            ("ordeal", &["turns_that_never_return_leave_the_other_workers_and_are_reported"]),
            (
                "hooks",
                &[
                    "all_workers_stuck_in_any_hook_hold_up_neither_newcomers_nor_the_end",
                    "scrapes_are_answered_while_all_workers_are_stuck",
                ],
            ),
            ("drain", &["a_worker_that_does_not_return_is_left_behind_and_reported"]),
            ("supervisor", &["a_service_that_is_stuck_is_no_reason_to_restart_the_gate"]),
        ],
    ),
    (
        "SIGTERM in every state",
        &[
            (
                "sigterm",
                &[
                    "in_every_state_sigterm_ends_it_in_time_and_what_was_admitted_is_answered",
                    "while_it_starts_sigterm_ends_it_too",
                ],
            ),
            (
                "drain",
                &[
                    "requests_already_sent_are_answered_though_they_wait",
                    "what_does_not_end_in_time_is_cut_and_the_exit_code_says_so",
                    "a_client_that_pipelines_without_end_does_not_hold_a_drain",
                ],
            ),
            ("upgrade", &["a_pair_at_a_gate_ends_with_the_drain_timeout"]),
        ],
    ),
    (
        "stdout and stderr closed, full, or unread",
        &[
            ("hostile", &["it_serves_with_stdout_and_stderr_closed_or_full"]),
            (
                "log",
                &[
                    "a_log_that_nobody_reads_holds_nothing_up",
                    "start_lines_that_nobody_reads_hold_nothing_up",
                ],
            ),
        ],
    ),
    (
        "slowhttptest in all its modes",
        &[("hostile", &["slowhttptest_in_all_its_modes_delays_no_healthy_client"])],
    ),
    (
        "Malformed HTTP",
        &[
            ("ordeal", &["malformed_http_of_every_kind_is_refused_beside_others"]),
            (
                "http_hostile",
                &[
                    "a_request_with_one_hostile_change_is_refused_under_every_split",
                    "a_server_answers_each_with_one_status_and_one_line_and_ends_the_connection",
                ],
            ),
        ],
    ),
    (
        "Abuse of TLS",
        &[(
            "tls_abuse",
            &[
                "noise_and_records_that_are_too_long_are_ended_at_once_and_delay_nobody",
                "a_flood_of_handshakes_leaves_the_established_their_replies_in_each_second",
            ],
        )],
    ),
    (
        "Sources by the thousand, datagrams that are forged",
        &[
            (
                "ordeal",
                &[
                    "sources_by_the_thousand_are_limited_one_by_one_over_ipv4",
                    "sources_by_the_thousand_are_limited_one_by_one_over_ipv6",
                ],
            ),
            ("overload", &["a_source_has_its_own_limit_and_its_own_rate"]),
            ("hostile", &["sources_by_the_thousand_have_each_their_own_limit_and_take_little_memory"]),
            ("datagram_sources", &["a_source_that_floods_takes_nothing_from_the_others"]),
        ],
    ),
    (
        "The admin endpoint and the agent attacked",
        &[
            ("admin_attack", &["it_answers_while_it_is_attacked"]),
            ("agent", &["a_flood_of_balancers_costs_no_thread_and_few_descriptors_and_the_next_is_answered"]),
        ],
    ),
    (
        "Servers of unequal speed behind a balancer, one of which ends and returns",
        &[("agent", &["haproxy_follows_three_servers_of_unequal_speed_while_one_drains_and_returns"])],
    ),
    (
        "Everything at random",
        &[("soak", &["what_is_hostile_at_random_ends_no_client_that_behaves_and_leaves_nothing_behind"])],
    ),
];

const HEAD: &str = "\
# Reliability

What a hostile world does to a server, which test holds against it, and what its last run saw. Those of `tests/ordeal.rs` do one thing
each to the real program, and show all that held beside it. Where nothing is shown the test asserts its promise and has no figure.
The page is written by the tests: they keep what they see in `target/figures/`, and `UPDATE=1 cargo test --test reliability` makes the
page of it.

Beside these: the parts that threads share are run in every interleaving (`model/`), what is parsed is tested under every split
of its input and by fuzzing (`fuzz/`), and the order of turns by a simulator of servers and crowds (`src/server/queue/simulate/`).

The soak draws attacks at random: two minutes with every run of the tests, and `tests/soak.sh 60` for an hour.
";

/// What the last run of a test saw; what the page says of it now where it has not run here.
fn seen(test: &str, page: &str) -> String {
    let Ok(text) = std::fs::read_to_string(format!("{FIGURES}/{test}")) else {
        let name = format!("`: {}", test.replace('_', " "));
        // A name may begin as another does.
        let said = page.split(&name).skip(1).find(|rest| rest.starts_with("<br>") || rest.starts_with(" |"));
        let cells = said.unwrap_or_default().lines().next().unwrap_or_default().trim_end_matches(" |");
        let cells = cells.split("<br>").skip(1).take_while(|cell| !cell.starts_with('`'));
        return cells.map(|cell| format!("<br>{cell}")).collect();
    };
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("<br>{line}"))
        .collect::<String>()
        .replace('|', "·")
}

fn page(figures: Option<&str>) -> String {
    let mut page = format!("{HEAD}\n| what is hostile | tests, and what they saw |\n|---|---|\n");
    for (what, files) in HELD {
        let tests = files.iter().flat_map(|(file, tests)| tests.iter().map(move |test| (file, test)));
        let cells = tests.map(|(file, test)| {
            format!(
                "`{file}`: {}{}",
                test.replace('_', " "),
                figures.map_or(String::new(), |page| seen(test, page))
            )
        });
        let _ = writeln!(page, "| {what} | {} |", cells.collect::<Vec<_>>().join("<br>"));
    }
    page
}

/// The page without its figures: what is between the names of tests.
fn names(page: &str) -> Vec<String> {
    let rows = page.lines().map(|line| {
        let cells = line.split("<br>").enumerate().filter(|(at, cell)| *at == 0 || cell.starts_with('`'));
        cells.map(|(_, cell)| cell.trim_end_matches([' ', '|'])).collect::<Vec<_>>().join("<br>")
    });
    rows.collect()
}

#[test]
fn every_test_that_the_page_names_is_there() {
    for (what, files) in HELD {
        for (file, tests) in *files {
            let text =
                std::fs::read_to_string(format!("{}/tests/{file}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
            for test in *tests {
                assert!(text.contains(&format!("fn {test}(")), "{what}: {test} is not in tests/{file}.rs");
            }
        }
    }
}

#[test]
fn the_page_is_what_the_tests_are() {
    if std::env::var_os("UPDATE").is_some() {
        let before = std::fs::read_to_string(PAGE).unwrap_or_default();
        std::fs::write(PAGE, page(Some(&before))).unwrap();
    }
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert_eq!(names(&written), names(&page(None)), "run UPDATE=1 cargo test --test reliability");
}
