internal import Basics
public import Foundation
internal import SwiftProtobuf

/// The content of one control message.
public typealias WireBody = WireEnvelope.OneOf_Body

/// Turns control messages and data headers into bytes and back; refuses what is not one.
public enum WireCodec {
    /// Raised with every change that an older worker would misread.
    public static let version: UInt32 = 8

    /// Bytes after every message: the XXH64 digest of what is before them, little end first.
    ///
    /// TCP's own sum lets one damaged segment in 65,536 pass, and a bit of a slot's loss or of a
    /// block's number would change a run's result.
    static let digestBytes = 8

    /// Longest control message accepted, in bytes: a plan for 4,096 slots of 512 samples fits.
    public static let controlBytesMax = 32 << 20

    /// Longest control message of a worker accepted, in bytes: a HELLO with 4,096 slots fits well.
    public static let workerMessageBytesMax = 256 << 10

    /// Longest data header accepted, in bytes.
    public static let headerBytesMax = 4 << 10

    /// Longest data payload accepted, in bytes: a piece of a file; blocks and chunks are shorter.
    public static let payloadBytesMax = 2 << 20

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
        guard let message = whole(frame),
            let envelope = try? WireEnvelope(serializedBytes: Array(message), options: options)
        else {
            try refuseVersion(ofUndigested: frame)
            throw ProtocolError(.malformed, "control message of \(frame.count) bytes is malformed")
        }
        try check(envelope.protocolVersion)
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
        guard let message = whole(frame),
            let header = try? WireDataHeader(serializedBytes: Array(message), options: options)
        else {
            throw ProtocolError(.malformed, "data header of \(frame.count) bytes is malformed")
        }
        return header
    }

    /// The message in a frame; nil where its digest says that it is not what was sent.
    private static func whole(_ frame: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard frame.count >= digestBytes else { return nil }
        let message = UnsafeRawBufferPointer(rebasing: frame.dropLast(digestBytes))
        let digest = frame.loadUnaligned(fromByteOffset: message.count, as: UInt64.self)
        return XXH64.digest(message) == UInt64(littleEndian: digest) ? message : nil
    }

    private static func check(_ found: UInt32) throws(ProtocolError) {
        guard found != version else { return }
        throw ProtocolError(
            .version,
            "message of protocol version \(found); this is version \(version): run the same Lineup "
                + "on every node")
    }

    /// Up to version 3 there was no digest: such a worker is told what is wrong with it.
    private static func refuseVersion(
        ofUndigested frame: UnsafeRawBufferPointer
    ) throws(ProtocolError) {
        guard let envelope = try? WireEnvelope(serializedBytes: Array(frame)),
            (1...3).contains(envelope.protocolVersion), envelope.body != nil
        else { return }
        try check(envelope.protocolVersion)
    }

    /// A message with its digest, as it travels.
    package static func sealed(_ message: Data) -> Data {
        let digest = message.withUnsafeBytes { XXH64.digest($0) }
        return message + withUnsafeBytes(of: digest.littleEndian) { Data($0) }
    }

    /// What a newer version says beside is not kept: nobody here would read it.
    private static var options: BinaryDecodingOptions {
        var options = BinaryDecodingOptions()
        options.discardUnknownFields = true
        return options
    }

    private static func serialised(_ message: any SwiftProtobuf.Message) -> Data {
        do {
            return sealed(try message.serializedData())
        } catch {
            // Serialising can only fail on strings over 2 GiB, which nothing here builds.
            preconditionFailure("cannot serialise a message: \(error)")
        }
    }
}
