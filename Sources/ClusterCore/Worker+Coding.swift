internal import Foundation
internal import Protocol

/// A worker as one run of bytes: there may be thousands of them, and a flight record begins with all.
extension CoordinatorStateMachine.Worker: Codable {
    init(from decoder: any Decoder) throws {
        let bytes = try decoder.singleValueContainer().decode(Data.self)
        var reader = FlightReader(Array(bytes)[...])
        guard case .hello(let hello) = try reader.body(),
            case .loadState(let load) = try reader.body(),
            let stage = Stage(rawValue: try reader.byte())
        else { throw FlightError("a worker is none of this version") }
        self.init(
            hello: hello, stage: stage, lastHeard: .nanoseconds(try reader.number()),
            toldAt: .nanoseconds(try reader.number()))
        self.load = load
        phase = try reader.text()
        appliedStep = try reader.number()
        counter = try reader.word()
        suspicion = try reader.number()
        holdsState = try reader.flag()
        hasLoaded = try reader.flag()
        isLeaving = try reader.flag()
        begunStep = try reader.number()
        if try reader.flag() { awayAt = .nanoseconds(try reader.number()) }
        pace = Double(bitPattern: try reader.word())
        embeddingPace = Double(bitPattern: try reader.word())
        let count = try reader.number()
        guard (0...1 << 20).contains(count) else { throw FlightError("a list of \(count)") }
        lacking = try (0..<count).map { _ in try reader.number() }
        lackingStep = try reader.number()
        lackingSince = .nanoseconds(try reader.number())
        rhythm = Rhythm(
            count: try reader.number(), mean: try reader.number(), deviation: try reader.number(),
            longest: try reader.number(),
            lastAt: try reader.flag() ? .nanoseconds(try reader.number()) : nil)
        numericsClass = try reader.text()
        lineage = try reader.text()
    }

    func encode(to encoder: any Encoder) throws {
        var writer = FlightWriter()
        writer.put(.hello(hello))
        writer.put(.loadState(load))
        writer.put(stage.rawValue)
        writer.put(lastHeard)
        writer.put(toldAt)
        writer.put(phase)
        writer.put(appliedStep)
        writer.put(counter)
        writer.put(suspicion)
        for flag in [holdsState, hasLoaded, isLeaving] { writer.put(UInt8(flag ? 1 : 0)) }
        writer.put(begunStep)
        writer.put(UInt8(awayAt == nil ? 0 : 1))
        if let awayAt { writer.put(awayAt) }
        writer.put(pace.bitPattern)
        writer.put(embeddingPace.bitPattern)
        writer.put(lacking.count)
        for slot in lacking { writer.put(slot) }
        writer.put(lackingStep)
        writer.put(lackingSince)
        for number in [rhythm.count, rhythm.mean, rhythm.deviation, rhythm.longest] {
            writer.put(number)
        }
        writer.put(UInt8(rhythm.lastAt == nil ? 0 : 1))
        if let lastAt = rhythm.lastAt { writer.put(lastAt) }
        writer.put(numericsClass)
        writer.put(lineage)
        var container = encoder.singleValueContainer()
        try container.encode(Data(writer.bytes))
    }
}

extension FlightWriter {
    /// Nanoseconds; clocks here have no finer ones.
    fileprivate mutating func put(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        put(Int(seconds * 1_000_000_000 + attoseconds / 1_000_000_000))
    }
}
