//! The fuzz targets. As ordinary tests they replay their corpus, in `__fuzz__`, and try random inputs.

use bolero::check;

#[test]
fn http_requests() {
    check!().for_each(tidegate_fuzz::http_requests);
}

#[test]
fn http_responses() {
    check!().for_each(tidegate_fuzz::http_responses);
}

#[test]
fn http_chunks() {
    check!().for_each(tidegate_fuzz::http_chunks);
}

#[test]
fn websocket_frames() {
    check!().for_each(tidegate_fuzz::websocket_frames);
}

#[test]
fn proxy_headers() {
    check!().for_each(tidegate_fuzz::proxy_headers);
}
