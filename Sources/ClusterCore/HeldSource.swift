internal import Protocol

/// Where a coordinator's machine asks for what a step trains on; not part of what is kept of the
/// machine.
struct HeldSource: Codable, Sendable {
    private let base: any StepSource

    init(_ base: any StepSource) { self.base = base }

    init(from decoder: any Decoder) throws {
        base = decoder.userInfo[.stepSource] as? any StepSource ?? UnknownSource()
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.singleValueContainer()
        try container.encodeNil()
    }

    func samples(step: Int) -> WireStepSamples { base.samples(step: step) }
    func scalars(step: Int, reductions: Int) -> WireStepScalars {
        base.scalars(step: step, reductions: reductions)
    }
    func names(of samples: WireSlotSamples) -> [String] { base.names(of: samples) }
}

/// A step of which nobody knows what it trained on: no decision looks at it.
private struct UnknownSource: StepSource {
    func samples(step: Int) -> WireStepSamples {
        var samples = WireStepSamples()
        samples.step = UInt64(step)
        return samples
    }
    func scalars(step: Int) -> WireStepScalars { WireStepScalars() }
}

extension CodingUserInfoKey {
    /// The ``StepSource`` that a coordinator's machine is read back with; may be left out.
    public static var stepSource: CodingUserInfoKey { CodingUserInfoKey(rawValue: "stepSource")! }
}
