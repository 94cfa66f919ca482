/// A small generator, SplitMix64: a seed repeats everything that is drawn.
struct FuzzRandom: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    /// The generator of one episode of a target.
    init(seed: UInt64, target: String, episode: Int) {
        var mixer = FuzzRandom(seed: seed &+ UInt64(episode) &* 0x9E37_79B9_7F4A_7C15)
        for byte in target.utf8 { mixer.state = mixer.next() ^ UInt64(byte) }
        state = mixer.next()
    }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }

    mutating func below(_ bound: Int) -> Int { Int(next() % UInt64(max(1, bound))) }

    mutating func chance(_ perThousand: Int) -> Bool { below(1000) < perThousand }

    mutating func pick<Element>(_ choices: [Element]) -> Element { choices[below(choices.count)] }

    /// A number as programs get them wrong: small, near a power of two, or anything.
    mutating func number() -> UInt64 {
        switch below(4) {
        case 0: return UInt64(below(12))
        case 1: return (1 << UInt64(below(64))) &- UInt64(below(3))
        case 2: return UInt64.max - UInt64(below(3))
        default: return next()
        }
    }
}
