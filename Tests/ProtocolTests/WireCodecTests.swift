import Foundation
import Protocol
import SwiftProtobuf
import Testing

@Suite struct WireCodecTests {
    private func decode(_ data: Data) throws(ProtocolError) -> WireEnvelope {
        var envelope = Result<WireEnvelope, ProtocolError>.success(WireEnvelope())
        Array(data).withUnsafeBytes { bytes in
            do throws(ProtocolError) {
                envelope = .success(try WireCodec.decode(bytes))
            } catch {
                envelope = .failure(error)
            }
        }
        return try envelope.get()
    }

    @Test func aPlanSurvivesTheWire() throws {
        var plan = WirePlan()
        plan.term = 3
        plan.generation = 7
        plan.step = 41
        plan.history = .max
        var lease = WireLease()
        lease.slot = 2
        lease.worker = "trainer-a"
        lease.attempt = 1
        plan.leases = [lease]
        plan.scalars.learningRate = (0.1).bitPattern
        let envelope = try decode(WireCodec.encode(.plan(plan), run: 9))
        #expect(envelope.run == 9)
        #expect(envelope.body == .plan(plan))
    }

    @Test func anotherVersionIsNamed() throws {
        var envelope = WireEnvelope()
        envelope.protocolVersion = WireCodec.version + 1
        envelope.goodbye = WireGoodbye()
        let error = try #require(throws: ProtocolError.self) {
            try decode(envelope.serializedData())
        }
        #expect(error.code == .version)
        #expect(error.message.contains("version \(WireCodec.version + 1)"))
    }

    @Test func anEnvelopeWithoutABodyIsMalformed() throws {
        var envelope = WireEnvelope()
        envelope.protocolVersion = WireCodec.version
        let error = try #require(throws: ProtocolError.self) {
            try decode(envelope.serializedData())
        }
        #expect(error.code == .malformed)
    }

    /// What arrives on an open port: random bytes, and real messages cut or flipped.
    @Test func garbageNeverTraps() {
        var random = SystemRandomNumberGenerator()
        var hello = WireHello()
        hello.worker = "trainer-x"
        hello.lineupVersion = "0.1.0"
        let real = Array(WireCodec.encode(.hello(hello), run: 1))
        for round in 0..<20_000 {
            var bytes: [UInt8]
            if round % 2 == 0 {
                bytes = (0..<Int.random(in: 0...200, using: &random)).map { _ in
                    UInt8.random(in: .min ... .max, using: &random)
                }
            } else {
                bytes = Array(real.prefix(Int.random(in: 0...real.count, using: &random)))
                if !bytes.isEmpty {
                    bytes[Int.random(in: 0..<bytes.count, using: &random)] ^=
                        UInt8.random(in: 1...255, using: &random)
                }
            }
            bytes.withUnsafeBytes { raw in
                _ = try? WireCodec.decode(raw)
                _ = try? WireCodec.decodeHeader(raw)
            }
        }
    }

    @Test func anOversizedHeaderIsRefusedUnread() throws {
        let bytes = [UInt8](repeating: 0, count: WireCodec.headerBytesMax + 1)
        let error = try #require(throws: ProtocolError.self) {
            try bytes.withUnsafeBytes { _ = try WireCodec.decodeHeader($0) }
        }
        #expect(error.code == .tooLarge)
    }
}
