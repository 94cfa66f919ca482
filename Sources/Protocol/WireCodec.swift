public import Foundation
internal import SwiftProtobuf

/// The content of one control message.
public typealias WireBody = WireEnvelope.OneOf_Body

/// Turns control messages and data headers into bytes and back; refuses what is not one.
public enum WireCodec {
    /// Raised with every change that an older worker would misread.
    public static let version: UInt32 = 4

    /// Longest control message accepted, in bytes: a plan for 4,096 slots of 512 samples fits.
    public static let controlBytesMax = 32 << 20

    /// Longest data header accepted, in bytes.
    public static let headerBytesMax = 4 << 10

    /// Longest data payload accepted, in bytes.
    public static let payloadBytesMax = 8 << 20

    /// One control message as the bytes of one frame.
    public static func encode(_ body: WireBody, run: UInt64) -> Data {
        var envelope = WireEnvelope()
        envelope.protocolVersion = version
        envelope.run = run
        envelope.body = body
        return serialised(envelope)
    }

    /// Reads one frame of the control channel.
    ///
    /// - Throws: ``ProtocolError`` when the frame is too long, is no envelope, has no body or is of
    ///   another protocol version.
    public static func decode(
        _ frame: UnsafeRawBufferPointer
    ) throws(ProtocolError) -> WireEnvelope {
        guard frame.count <= controlBytesMax else {
            throw ProtocolError(
                .tooLarge,
                "control message of \(frame.count) bytes; at most \(controlBytesMax) are accepted")
        }
        let envelope: WireEnvelope
        do {
            envelope = try WireEnvelope(serializedBytes: Array(frame))
        } catch {
            throw ProtocolError(.malformed, "control message of \(frame.count) bytes is malformed")
        }
        guard envelope.protocolVersion == version else {
            throw ProtocolError(
                .version,
                "message of protocol version \(envelope.protocolVersion); this is version "
                    + "\(version): run the same Lineup on every node")
        }
        guard envelope.body != nil else {
            throw ProtocolError(.malformed, "control message without a body")
        }
        return envelope
    }

    /// A data header as the bytes of one frame.
    public static func encode(_ header: WireDataHeader) -> Data { serialised(header) }

    /// Reads the header frame of a data message.
    ///
    /// - Throws: ``ProtocolError`` when the frame is too long or is no header.
    public static func decodeHeader(
        _ frame: UnsafeRawBufferPointer
    ) throws(ProtocolError) -> WireDataHeader {
        guard frame.count <= headerBytesMax else {
            throw ProtocolError(
                .tooLarge,
                "data header of \(frame.count) bytes; at most \(headerBytesMax) are accepted")
        }
        do {
            return try WireDataHeader(serializedBytes: Array(frame))
        } catch {
            throw ProtocolError(.malformed, "data header of \(frame.count) bytes is malformed")
        }
    }

    private static func serialised(_ message: any SwiftProtobuf.Message) -> Data {
        do {
            return try message.serializedData()
        } catch {
            // Serialising can only fail on strings over 2 GiB, which nothing here builds.
            preconditionFailure("cannot serialise a message: \(error)")
        }
    }
}
