//! Looking up a value by the name that the command line has for it.

/// The value of a name, or an error that lists the names.
pub(crate) fn named<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Result<T, String> {
    let found = all.iter().copied().find(|value| name(*value) == text);
    found.ok_or_else(|| {
        let names: Vec<_> = all.iter().map(|value| name(*value)).collect();
        format!("`{text}` is not one of {}", names.join(", "))
    })
}
