//! A worker tells a session that its connection has ended; see [`farewells`](crate::server::close::farewells).

use super::station::Station;

/// Tells one session, and leaves the next to whichever worker comes first.
pub(crate) fn say_farewell(station: &mut Station<'_>) {
    let (shared, farewells) = (station.shared, &station.shared.farewells);
    // Before looking: a thread that adds one from now on puts the job into the line again.
    farewells.answer_call();
    let Some((farewell, more)) = farewells.take() else { return };
    let closer = shared.closer();
    if more && farewells.call() {
        closer.queue_farewells();
    }
    let began = station.now;
    station.begin(farewells.cost.get());
    closer.say_farewell(farewell);
    station.finish();
    farewells.cost.note(station.now.saturating_sub(began));
}
