internal import Foundation
internal import SwiftProtobuf

// Messages that may be part of a state machine's state: coded as their own bytes. Swift prefers its own
// synthesis to a protocol's default, so that each says it for itself.

private func decoded<Message: SwiftProtobuf.Message>(_ decoder: any Swift.Decoder) throws -> Message
{
    try Message(serializedBytes: decoder.singleValueContainer().decode(Data.self))
}

private func encodeBytes(_ message: some SwiftProtobuf.Message, _ encoder: any Swift.Encoder) throws
{
    var container = encoder.singleValueContainer()
    try container.encode(try message.serializedData())
}

extension WireHello: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WirePrepared: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireLoadState: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireCommit: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WirePlan: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireCheckpointDuty: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireStepSamples: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireStepScalars: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireSlotDone: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireReady: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireSlotReturned: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireScoreStatus: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireEvaluationRows: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}

extension WireEvaluationTask: Codable {
    /// Reads the message's bytes.
    public init(from decoder: any Swift.Decoder) throws { self = try decoded(decoder) }
    /// Writes the message's bytes.
    public func encode(to encoder: any Swift.Encoder) throws { try encodeBytes(self, encoder) }
}
