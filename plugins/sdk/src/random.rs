//! SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014), and a hash. Not for secrets.

const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The next number of a state.
pub(crate) fn next(state: &mut u64) -> u64 {
    let number = mix(*state);
    *state = state.wrapping_add(GAMMA);
    number
}

/// Spreads every bit over all others: the first number of the state `bits`.
pub fn mix(bits: u64) -> u64 {
    let z = bits.wrapping_add(GAMMA);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A hash of bytes that is the same everywhere: FNV-1a with 64 bits (Fowler, Noll, Vo).
pub fn hash(bytes: impl IntoIterator<Item = u8>) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    bytes.into_iter().fold(0xCBF2_9CE4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    /// Values that its authors publish.
    #[test]
    fn the_hash_is_that_of_its_authors() {
        for (text, hash) in
            [("", 0xCBF2_9CE4_8422_2325), ("a", 0xAF63_DC4C_8601_EC8C), ("foobar", 0x8594_4171_F739_67E8)]
        {
            assert_eq!(super::hash(text.bytes()), hash, "{text}");
        }
    }

    /// The first numbers of the reference implementation for seed 1234567.
    #[test]
    fn the_numbers_are_those_of_the_reference() {
        let mut state = 1_234_567;
        let numbers = [(); 5].map(|()| super::next(&mut state));
        assert_eq!(
            numbers,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821
            ]
        );
    }
}
