/// What a stream of random numbers is for; part of its key, so that streams never overlap.
public enum RandomPurpose: UInt32, Sendable {
    case initialisation = 1
    case identityOrder = 2
    case imageChoice = 3
    case augmentation = 4
    case dropout = 5
    case mining = 6
    case audit = 7
    case dataset = 8
    case curation = 9
    case imageOrder = 10
    case validation = 11
    case tripletOrder = 12
    case tripletMining = 13
}

/// A counter-based generator: the n-th number is a pure function of the key.
///
/// There is no state to save: the same (seed, step, slot, purpose, item) gives the same numbers on
/// any machine, in any process, in any order.
///
/// - SeeAlso: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11
///   (Philox4x32-10).
public struct CounterRandom: RandomNumberGenerator, Sendable {
    private let key: (UInt32, UInt32)
    private let high: (UInt32, UInt32)
    private var block: UInt64 = 0
    private var buffered: (UInt64, UInt64) = (0, 0)
    private var available = 0

    /// Keys a stream.
    ///
    /// - Parameters:
    ///   - step: optimizer step, or any index of the same role.
    ///   - slot: slot within the step.
    ///   - item: sample within the slot, or any further index.
    public init(
        seed: UInt64, step: UInt64 = 0, slot: UInt64 = 0, item: UInt64 = 0,
        purpose: RandomPurpose
    ) {
        var hash = XXH64(seed: seed)
        hash.update(step)
        hash.update(slot)
        hash.update(item)
        hash.update(UInt64(purpose.rawValue))
        let low = hash.finish()
        hash.update(low)
        let other = hash.finish()
        key = (UInt32(truncatingIfNeeded: low), UInt32(truncatingIfNeeded: low >> 32))
        high = (UInt32(truncatingIfNeeded: other), UInt32(truncatingIfNeeded: other >> 32))
    }

    /// The next 64 random bits.
    public mutating func next() -> UInt64 {
        if available == 0 {
            let words = Self.philox(
                counter: (
                    UInt32(truncatingIfNeeded: block), UInt32(truncatingIfNeeded: block >> 32),
                    high.0, high.1
                ), key: key)
            block &+= 1
            buffered = (
                UInt64(words.0) | UInt64(words.1) << 32, UInt64(words.2) | UInt64(words.3) << 32
            )
            available = 2
        }
        available -= 1
        return available == 1 ? buffered.0 : buffered.1
    }

    /// A number in [0, 1) with 53 random bits.
    public mutating func uniform() -> Double {
        Double(next() >> 11) * 0x1p-53
    }

    /// An index in 0..<bound, without bias.
    ///
    /// - SeeAlso: Lemire, "Fast random integer generation in an interval", arXiv:1805.10941.
    public mutating func index(below bound: Int) -> Int {
        precondition(bound > 0, "index(below: \(bound)): the bound must be positive")
        let range = UInt64(bound)
        var product = next().multipliedFullWidth(by: range)
        if product.low < range {
            let threshold = (0 &- range) % range
            while product.low < threshold { product = next().multipliedFullWidth(by: range) }
        }
        return Int(product.high)
    }

    /// Puts the elements in random order, from the last place to the first (Fisher-Yates).
    public mutating func shuffle<Element>(_ elements: inout [Element]) {
        guard elements.count > 1 else { return }
        for place in stride(from: elements.count - 1, to: 0, by: -1) {
            elements.swapAt(place, index(below: place + 1))
        }
    }

    /// Ten rounds of Philox over four 32-bit words.
    package static func philox(
        counter: (UInt32, UInt32, UInt32, UInt32), key: (UInt32, UInt32)
    ) -> (UInt32, UInt32, UInt32, UInt32) {
        var (c0, c1, c2, c3) = counter
        var (k0, k1) = key
        for _ in 0..<10 {
            let first = c0.multipliedFullWidth(by: 0xD251_1F53)
            let second = c2.multipliedFullWidth(by: 0xCD9E_8D57)
            (c0, c1, c2, c3) = (second.high ^ c1 ^ k0, second.low, first.high ^ c3 ^ k1, first.low)
            k0 &+= 0x9E37_79B9
            k1 &+= 0xBB67_AE85
        }
        return (c0, c1, c2, c3)
    }
}
