//! Confluent framing: a zero byte, the writer schema's id (32 bits, big-endian), the Avro body.

/// Bytes before the body.
pub const HEADER_BYTES: usize = 5;

/// The schema id and the body of a framed value; `None` when it is not framed so.
///
/// ```
/// use dataflow_connectors::decode::framing::split;
/// assert_eq!(split(&[0, 0, 0, 1, 2, 9]), Some((258, &[9u8][..])));
/// assert_eq!(split(&[1, 0, 0, 1, 2, 9]), None);
/// assert_eq!(split(&[0, 0, 0, 1]), None);
/// ```
pub fn split(value: &[u8]) -> Option<(u32, &[u8])> {
    let (header, body) = value.split_first_chunk::<HEADER_BYTES>()?;
    let [0, a, b, c, d] = *header else { return None };
    Some((u32::from_be_bytes([a, b, c, d]), body))
}

/// Frames a body under a schema id.
pub fn join(id: u32, body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + body.len());
    value.push(0);
    value.extend_from_slice(&id.to_be_bytes());
    value.extend_from_slice(body);
    value
}
