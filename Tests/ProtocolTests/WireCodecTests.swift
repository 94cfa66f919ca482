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
            try decode(WireCodec.sealed(envelope.serializedData()))
        }
        #expect(error.code == .version)
        #expect(error.message.contains("version \(WireCodec.version + 1)"))
    }

    /// Up to version 3 nothing followed a message.
    @Test func anOldWorkerIsToldItsVersion() throws {
        var envelope = WireEnvelope()
        envelope.protocolVersion = 3
        envelope.goodbye = WireGoodbye()
        let error = try #require(throws: ProtocolError.self) {
            try decode(envelope.serializedData())
        }
        #expect(error.code == .version)
        #expect(error.message.contains("version 3"))
    }

    /// A bit of a loss or of a block's number would change a run's result.
    @Test func aFlippedBitAnywhereIsNoMessage() throws {
        var done = WireSlotDone()
        done.step = 41
        done.slot = 3
        done.loss = Float(0.75).bitPattern
        var header = WireDataHeader()
        header.kind = .partial
        header.step = 41
        header.block = 7
        header.digest = 11
        let control = Array(WireCodec.encode(.slotDone(done), run: 9))
        let data = Array(WireCodec.encode(header))
        for (frame, isControl) in [(control, true), (data, false)] {
            for bit in 0..<8 * frame.count {
                var damaged = frame
                damaged[bit / 8] ^= 1 << UInt8(bit % 8)
                let error = #expect(throws: ProtocolError.self) {
                    try damaged.withUnsafeBytes {
                        if isControl {
                            _ = try WireCodec.decode($0)
                        } else {
                            _ = try WireCodec.decodeHeader($0)
                        }
                    }
                }
                #expect(error?.code == .malformed, "bit \(bit)")
            }
        }
    }

    @Test func anEnvelopeWithoutABodyIsMalformed() throws {
        var envelope = WireEnvelope()
        envelope.protocolVersion = WireCodec.version
        let error = try #require(throws: ProtocolError.self) {
            try decode(WireCodec.sealed(envelope.serializedData()))
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
            // Half of them with a digest that fits, as somebody who means harm would send them.
            if round % 4 > 1 { bytes = Array(WireCodec.sealed(Data(bytes))) }
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
