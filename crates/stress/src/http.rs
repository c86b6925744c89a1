//! HTTP/1.1 for a load generator: the requests of a run, and how a response is judged.

use super::answers::Answer;
use super::outcome::Outcome;
use super::payload::Payload;
use super::step::{Step, clear, contains};
use tidegate_protocols::RequestForm;
use tidegate_protocols::http::{Response, ResponseReader, is_answered_without_a_body, request};
use tidegate_units::url::Url;

const BAD: Step = Step::Done(Outcome::BadReply, false);
/// Of a body no more than this is kept to look for a text in.
const MAX_KEPT: usize = 64 << 10;

/// The requests of a run, ready to be sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpRequest {
    requests: Payload,
    /// The method is HEAD, whose answers have no body.
    head_only: bool,
}

impl HttpRequest {
    /// A GET, or a POST of each part of the body in turn, or what the form says. `close` asks the server to close
    /// afterwards.
    pub(crate) fn new(url: &Url, form: &RequestForm, body: Option<&Payload>, close: bool) -> Self {
        let requests = match body {
            None => Payload::whole(request(url, form, None, close)),
            Some(body) => {
                Payload::collect((0..body.parts()).map(|n| request(url, form, Some(body.part(n)), close)))
            }
        };
        Self { requests, head_only: is_answered_without_a_body(form, body.is_some()) }
    }

    /// Whether answers have no body.
    pub(crate) fn expects_no_body(&self) -> bool {
        self.head_only
    }

    /// The bytes of request number `n`.
    pub(crate) fn bytes(&self, n: usize) -> &[u8] {
        self.requests.part(n)
    }

    /// The bytes of the largest request.
    pub(crate) fn largest(&self) -> usize {
        self.requests.largest()
    }
}

/// How far a response has come.
#[derive(Debug, Default)]
pub(crate) struct HttpReply {
    reader: ResponseReader,
    /// The start of the body, when a text is looked for.
    text: Vec<u8>,
}

impl HttpReply {
    /// A response that has not begun; `head_only`: it answers HEAD.
    pub(crate) fn expect(&mut self, head_only: bool) {
        self.reader.head_only = head_only;
    }

    /// What is counted of the reply that has just ended.
    pub(crate) fn answer(&self) -> Answer {
        let (status, closes) = (self.reader.status(), !self.reader.keeps());
        Answer { status, retry_after: self.reader.retry_after(), closes }
    }

    /// Forgets the response before.
    pub(crate) fn reset(&mut self) {
        self.reader.reset();
        clear(&mut self.text);
    }

    /// Takes the next bytes.
    pub(crate) fn read(&mut self, bytes: &[u8], expect: Option<&[u8]>, busy: Option<&[u8]>) -> Step {
        let Self { reader, text } = self;
        let keeps_text = expect.is_some() || busy.is_some();
        let came = reader.read(bytes, &mut |piece| {
            if keeps_text {
                let room = MAX_KEPT.saturating_sub(text.len()).min(piece.len());
                text.extend_from_slice(&piece[..room]);
            }
        });
        match came {
            Response::More => Step::More,
            Response::Whole(keep) => Step::Done(self.judge(expect, busy), keep),
            Response::Wrong => BAD,
        }
    }

    /// The connection has ended.
    pub(crate) fn end(&mut self, expect: Option<&[u8]>, busy: Option<&[u8]>) -> Option<Step> {
        self.reader.ends_with_the_connection().then(|| Step::Done(self.judge(expect, busy), false))
    }

    fn judge(&self, expect: Option<&[u8]>, busy: Option<&[u8]>) -> Outcome {
        let status = self.reader.status();
        if matches!(status, 429 | 503) || busy.is_some_and(|text| contains(&self.text, text)) {
            return Outcome::Busy;
        }
        let good = (200..400).contains(&status) && expect.is_none_or(|text| contains(&self.text, text));
        if good { Outcome::Ok } else { Outcome::BadReply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_protocols::http::MAX_HEAD;

    /// Feeds a response whole, and byte by byte; both must be judged alike.
    fn judge(response: &str, expect: Option<&str>) -> Step {
        let expect = expect.map(str::as_bytes);
        let mut whole = HttpReply::default();
        let step = whole.read(response.as_bytes(), expect, None);
        let mut reply = HttpReply::default();
        let mut pieces = Step::More;
        for byte in response.as_bytes() {
            assert_eq!(pieces, Step::More, "{response:?}");
            pieces = reply.read(&[*byte], expect, None);
            if pieces == BAD {
                break;
            }
        }
        assert_eq!(step, pieces, "{response:?}");
        match step {
            Step::More => whole.end(expect, None).unwrap_or(Step::More),
            step => step,
        }
    }

    #[test]
    fn responses_are_judged() {
        for (response, expect, step) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", None, Step::Done(Outcome::Ok, true)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", None, Step::More),
            ("HTTP/1.1 204 No Content\r\n\r\n", None, Step::Done(Outcome::Ok, true)),
            ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", None, Step::Done(Outcome::Ok, false)),
            ("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhi", None, Step::Done(Outcome::Ok, false)),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                None,
                Step::Done(Outcome::Ok, true),
            ),
            ("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", None, Step::Done(Outcome::Busy, true)),
            ("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n", None, Step::Done(Outcome::BadReply, true)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0a;x=1\r\n0123456789\r\n0\r\n\r\n",
                Some("c01"),
                Step::Done(Outcome::Ok, true),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
                None,
                Step::Done(Outcome::Ok, true),
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", None, BAD),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", None, BAD),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
                Some("ho"),
                Step::Done(Outcome::BadReply, true),
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n", None, BAD),
        ] {
            assert_eq!(judge(response, expect), step, "{response:?}");
        }
    }

    const OK: Step = Step::Done(Outcome::Ok, true);
    /// Answered well, and the connection cannot be used again.
    const LAST: Step = Step::Done(Outcome::Ok, false);

    /// A response of these header lines, and what comes after its head.
    fn judge_headers(status: &str, headers: &[&str], body: &str) -> Step {
        let head: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        judge(&format!("{status}\r\n{head}\r\n{body}"), None)
    }

    #[test]
    fn a_response_without_a_body_ends_with_its_head_whatever_its_headers_say() {
        for headers in [
            &["Transfer-Encoding: chunked"][..],
            &["Content-Length: 500"],
            &["Content-Length: 5", "Content-Length: 6"],
            &["Content-Length: x"],
            &["Transfer-Encoding: gzip", "Content-Length: 2"],
            &[],
        ] {
            for status in ["HTTP/1.1 304 Not Modified", "HTTP/1.1 204 No Content", "HTTP/1.1 204"] {
                assert_eq!(judge_headers(status, headers, ""), OK, "{status} {headers:?}");
            }
        }
        // What a server sends all the same belongs to nothing.
        assert_eq!(
            judge_whole("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            LAST
        );
    }

    #[test]
    fn a_connection_is_closed_where_any_line_and_any_item_says_so() {
        let length = "Content-Length: 2";
        for (version, headers, step) in [
            ("1.1", &[length][..], OK),
            ("1.0", &[length], LAST),
            ("1.1", &["Connection: close, TE", length], LAST),
            ("1.1", &["Connection: TE,close", length], LAST),
            ("1.1", &["connection: Close", length], LAST),
            ("1.1", &["CONNECTION: keep-alive, CLOSE", length], LAST),
            ("1.1", &["Connection: close", "Connection: Keep-Alive", length], LAST),
            ("1.1", &["Connection: Keep-Alive", "Connection: close", length], LAST),
            ("1.0", &["Connection: Keep-Alive, X", length], OK),
            ("1.0", &["Connection: X", "Connection: keep-alive", length], OK),
            ("1.0", &["Connection: keep-alive", "Connection: close", length], LAST),
            ("1.1", &["Connection: closed, not-close", length], OK),
            ("1.1", &["Connection:", length], OK),
            ("1.1", &["Proxy-Connection: close", length], OK),
        ] {
            assert_eq!(judge_headers(&format!("HTTP/{version} 200 OK"), headers, "hi"), step, "{headers:?}");
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_an_error() {
        for (headers, step) in [
            (&["Content-Length: 2", "Content-Length: 2"][..], OK),
            (&["Content-Length: 2, 2"], OK),
            (&["Content-Length: 2,2 , 2"], OK),
            (&["Content-Length:   2  "], OK),
            (&["Content-Length: 002"], OK),
            (&["Content-Length: 5", "Content-Length: 2"], BAD),
            (&["Content-Length: 2", "Content-Length: 5"], BAD),
            (&["Content-Length: 2, 5"], BAD),
            (&["Content-Length: +2"], BAD),
            (&["Content-Length: -2"], BAD),
            (&["Content-Length: 2 2"], BAD),
            (&["Content-Length: 0x2"], BAD),
            (&["Content-Length:"], BAD),
            (&["Content-Length: 18446744073709551616"], BAD),
        ] {
            assert_eq!(judge_headers("HTTP/1.1 200 OK", headers, "hi"), step, "{headers:?}");
        }
        // Chunks say themselves where they end.
        for length in ["Content-Length: 99", "Content-Length: 5, 6", "Content-Length: x"] {
            let headers = [length, "Transfer-Encoding: chunked"];
            assert_eq!(judge_headers("HTTP/1.1 200 OK", &headers, "2\r\nhi\r\n0\r\n\r\n"), OK, "{length}");
        }
    }

    #[test]
    fn a_client_is_lenient_where_the_end_is_not_in_doubt() {
        let chunked = "Transfer-Encoding: chunked";
        for (headers, body, step) in [
            (&[chunked][..], "0000000000000002\r\nhi\r\n0000000000000000\r\n\r\n", OK),
            (&[chunked], "00000002\r\nhi\r\n00000000\r\n\r\n", OK),
            (&[chunked], &format!("{}2\r\nhi\r\n0\r\n\r\n", "0".repeat(200)), OK),
            (&[chunked], "2   \r\nhi\r\n0  \r\n\r\n", OK),
            (&[chunked], "2;a=\"b\"\r\nhi\r\n0;c\r\n\r\n", OK),
            (&[chunked], "2\nhi\n0\n\n", OK),
            (&[chunked], "2\r\nhi\r\n0\r\nA: b\r\nC: d\r\n\r\n", OK),
            (&["Transfer-Encoding: Chunked"], "2\r\nhi\r\n0\r\n\r\n", OK),
            (&["Transfer-Encoding: gzip", chunked], "2\r\nhi\r\n0\r\n\r\n", OK),
            (&["Transfer-Encoding: gzip, chunked"], "2\r\nhi\r\n0\r\n\r\n", OK),
            (&["Server : x", "Content-Length : 2"], "hi", OK),
            (&["X-A: b", "  c", "Content-Length: 2"], "hi", OK),
            (&["Content-Length: 2", "X-A: b", "\tc: d"], "hi", OK),
            (&["X-A: caf\u{e9}", "Content-Length: 2"], "hi", OK),
            // `chunked` that is not last does not end the body; neither does another coding alone.
            (&["Transfer-Encoding: chunked, gzip"], "hi", LAST),
            (&["Transfer-Encoding: identity", "Content-Length: 1"], "hi", LAST),
            (&[], "hi", LAST),
            (&[chunked], "10000000000000000\r\nhi", BAD),
            (&[chunked], "\r\nhi\r\n", BAD),
            (&[chunked], " 2\r\nhi\r\n", BAD),
            (&[chunked], "-2\r\nhi\r\n", BAD),
            (&[chunked], "2\r\nhi!\r\n", BAD),
            (&[chunked], "2\r\nh", Step::More),
            (&[chunked], "2\r\nhi\r\n0\r\n", Step::More),
        ] {
            assert_eq!(judge_headers("HTTP/1.1 200 OK", headers, body), step, "{headers:?} {body:?}");
        }
        for response in
            ["HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"]
        {
            assert_eq!(judge(response, None), OK, "{response:?}");
        }
        let cookies: Vec<_> = (0..60).map(|n| format!("Set-Cookie: c{n}={}", "v".repeat(500))).collect();
        let mut headers: Vec<&str> = cookies.iter().map(String::as_str).collect();
        headers.push("Content-Length: 2");
        assert_eq!(judge_headers("HTTP/1.1 200 OK", &headers, "hi"), OK);
    }

    #[test]
    fn an_interim_response_is_not_the_answer_and_an_upgrade_is_no_good_one() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        for interim in
            ["100 Continue\r\n", "103 Early Hints\r\nLink: </a.css>\r\n", "102 x\r\nContent-Length: 9\r\n"]
        {
            assert_eq!(judge(&format!("HTTP/1.1 {interim}\r\n{ok}"), None), OK, "{interim}");
        }
        let upgrade = judge_whole("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n\x01\x02");
        assert_eq!(upgrade, Step::Done(Outcome::BadReply, false));
    }

    #[test]
    fn what_has_no_end_is_given_up_within_its_bounds() {
        let mut reply = HttpReply::default();
        let mut step = reply.read(b"HTTP/1.1 200 OK\r\n", None, None);
        let mut fed = 0;
        while step == Step::More && fed < 10 * MAX_HEAD {
            step = reply.read(b"X: y\r\n", None, None);
            fed += 6;
        }
        assert!(step == BAD && fed <= MAX_HEAD + 6, "{fed}");
        for (begin, piece) in [("1;", "x"), ("", "0"), ("0\r\n", "x"), ("0\r\n", "x: y\r\n"), ("0\r\n", "\r")]
        {
            let mut reply = HttpReply::default();
            let head = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{begin}");
            let (mut step, mut fed) = (reply.read(head.as_bytes(), None, None), 0);
            while step == Step::More && fed < 10 * MAX_HEAD {
                step = reply.read(piece.as_bytes(), None, None);
                fed += piece.len();
            }
            assert!(step == BAD && fed <= MAX_HEAD + 16, "{begin:?} {piece:?}: {fed}");
        }
    }

    /// Judges what comes in one piece; bytes after the response are part of the question.
    fn judge_whole(response: &str) -> Step {
        HttpReply::default().read(response.as_bytes(), None, None)
    }

    #[test]
    fn each_part_of_a_payload_is_the_body_of_a_request() {
        let url: Url = "http://h:1/a?b".parse().unwrap();
        let body = Payload::collect([b"one".to_vec(), b"three".to_vec()].into_iter());
        let request = HttpRequest::new(&url, &RequestForm::default(), Some(&body), false);
        for (n, end) in ["Content-Length: 3\r\n\r\none", "Content-Length: 5\r\n\r\nthree"].iter().enumerate()
        {
            assert!(
                request.bytes(n).starts_with(b"POST /a?b ") && request.bytes(n).ends_with(end.as_bytes())
            );
        }
        let form = RequestForm::of(&url, Some("HEAD"), &[]).unwrap();
        assert!(HttpRequest::new(&url, &form, None, false).expects_no_body() && !request.expects_no_body());
    }

    #[test]
    fn the_answer_to_head_ends_with_its_head() {
        let mut reply = HttpReply::default();
        reply.expect(true);
        assert_eq!(reply.read(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", None, None), OK);
    }

    #[test]
    fn an_answer_says_when_to_come_again() {
        for (line, seconds) in
            [("Retry-After: 7\r\n", Some(7)), ("retry-after: Wed, 21 Oct\r\n", Some(0)), ("", None)]
        {
            let mut reply = HttpReply::default();
            let text = format!("HTTP/1.1 503 x\r\nContent-Length: 0\r\nConnection: close\r\n{line}\r\n");
            assert_eq!(reply.read(text.as_bytes(), None, None), Step::Done(Outcome::Busy, false));
            assert_eq!(reply.answer(), Answer { status: 503, retry_after: seconds, closes: true });
        }
    }
}
