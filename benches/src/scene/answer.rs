//! An HTTP answer, as far as a client of a scene reads it.

/// The longest head.
const HEAD_MAX: usize = 16 << 10;

/// What an answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Seconds after which a refused client may come back.
    pub(super) retry_after: Option<u32>,
    /// The connection stays.
    pub(super) stays: bool,
}

/// How much of an answer there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    More,
    Whole(Answer),
    /// It is none.
    Broken,
}

/// Reads what came so far; `ended` when nothing more comes.
pub(super) fn read(bytes: &[u8], ended: bool) -> Reading {
    let Some(head_length) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if ended || bytes.len() > HEAD_MAX { Reading::Broken } else { Reading::More };
    };
    let head = String::from_utf8_lossy(&bytes[..head_length]);
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
    let Some(status) = status else { return Reading::Broken };
    let (mut length, mut retry_after, mut stays) = (None, None, true);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse::<usize>().ok();
        } else if name.eq_ignore_ascii_case("retry-after") {
            retry_after = value.trim().parse().ok();
        } else if name.eq_ignore_ascii_case("connection") {
            stays = !value.trim().eq_ignore_ascii_case("close");
        }
    }
    let whole = match length {
        Some(length) => bytes.len() >= head_length + 4 + length,
        None => ended,
    };
    match (whole, ended) {
        (true, _) => Reading::Whole(Answer { status, retry_after, stays: stays && !ended }),
        (false, true) => Reading::Broken,
        (false, false) => Reading::More,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_when_its_body_is_there() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nContent-Length: 4\r\n\r\nbusy";
        let answer = Answer { status: 503, retry_after: Some(2), stays: true };
        for end in 0..text.len() {
            assert_eq!(read(&text[..end], false), Reading::More, "{end}");
            assert_eq!(read(&text[..end], true), Reading::Broken, "{end}");
        }
        assert_eq!(read(text, false), Reading::Whole(answer));
    }

    #[test]
    fn an_answer_without_a_length_ends_with_its_connection() {
        let text = b"HTTP/1.0 200 OK\r\n\r\nbody";
        assert_eq!(read(text, false), Reading::More);
        assert_eq!(read(text, true), Reading::Whole(Answer { status: 200, retry_after: None, stays: false }));
        assert_eq!(read(b"nonsense\r\n\r\n", false), Reading::Broken);
    }
}
