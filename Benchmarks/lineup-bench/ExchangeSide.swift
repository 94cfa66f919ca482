import ArgumentParser
import Basics
import ClusterCore
import Exchange
import Foundation
import Protocol
import Training
import Transport

#if canImport(Glibc)
    import Glibc
#endif

/// One member of an all-reduce: the exchange of trainers without what computes and commits.
///
/// Says its address in one line and takes everybody's in the next. Then each line `reduce BYTES N`
/// makes N all-reduces of that size and is answered by `{"begun": [...], "ended": [...]}`, seconds of
/// the machine's clock. The end of the input ends the process.
struct ExchangeMemberCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "exchange-member",
        abstract: "Take part in all-reduces, as told on standard input.",
        shouldDisplay: false)

    @Option(help: "This member, counted from 0.")
    var rank: Int

    @Flag(help: "Name the TCP address alone, as a member on another machine does.")
    var remote = false

    func run() throws {
        // As every trainer does.
        KeptMemory.enable()
        let member = try ExchangeMember(rank: rank, isRemote: remote)
        try answer(["address": member.address])
        guard let line = readLine() else { return }
        try member.connect(line.split(separator: "|").map(String.init))
        while let line = readLine() {
            let words = line.split(separator: " ").dropFirst().compactMap { Int($0) }
            guard words.count == 2 else { throw BenchFailure("'\(line)' is not: reduce BYTES N") }
            var times: [String: [Double]] = ["begun": [], "ended": []]
            for _ in 0..<words[1] {
                let (begun, ended) = try member.reduce(byteCount: words[0])
                times["begun"]!.append(begun)
                times["ended"]!.append(ended)
            }
            try answer(times)
        }
    }

    private func answer(_ value: some Encodable) throws {
        try FileHandle.standardOutput.write(
            contentsOf: try JSONEncoder().encode(value) + Data([10]))
    }
}

private final class ExchangeMember {
    let address: String
    private let me: String
    private let rank: Int
    private var members: [String] = []
    private let context = Context()
    private let data: Socket
    private let carrier: BlockCarrier
    private var pools: [Int: BufferPool] = [:]
    /// The step before: a peer may still copy from it.
    private var last: (buffers: StepBuffers, pool: BufferPool)?
    private var parked = ParkedBlocks(bytesMax: 1 << 30)
    private var step = 0

    init(rank: Int, isRemote: Bool) throws {
        self.rank = rank
        me = Self.name(rank)
        data = try Socket(context, .router, frameBytesMax: WireCodec.payloadBytesMax)
        carrier = BlockCarrier(context, me: me)
        let bound = try data.bindForData("tcp://127.0.0.1:*", host: "127.0.0.1")
        address = isRemote ? String(bound.split(separator: " ")[0]) : carrier.addresses(bound)
    }

    private static func name(_ rank: Int) -> String { "m\(rank)" }

    func connect(_ addresses: [String]) throws {
        members = addresses.indices.map { Self.name($0) }
        try carrier.connect(
            addresses.enumerated().map { rank, address in
                var member = WireMember()
                member.worker = Self.name(rank)
                member.dataAddress = address
                return member
            })
    }

    /// Begins when everybody is there.
    ///
    /// - Returns: the machine's clock at the beginning and at the end, in seconds.
    func reduce(byteCount: Int) throws -> (begun: Double, ended: Double) {
        let layout = EffectLayout(gradientCount: byteCount / 4, statisticsCount: 0)
        let pool = pools[byteCount] ?? BufferPool(layout)
        pools[byteCount] = pool
        let mine = pool.take()
        for place in 0..<mine.gradient.count { mine.gradient.base[place] = value(place, of: rank) }
        _ = try all(EffectLayout(gradientCount: 1, statisticsCount: 0), nil)
        let begun = Self.now
        let effect = try all(layout, mine)
        let ended = Self.now
        // Sums of small whole numbers are exact in any order.
        let scale = 1 / Float(members.count)
        for place in stride(from: 0, to: layout.gradientCount, by: 997) {
            let sum = members.indices.reduce(Float(0)) { $0 + value(place, of: $1) }
            guard effect.gradient.base[place] == sum * scale else {
                throw BenchFailure(
                    "element \(place) is \(effect.gradient.base[place]), not \(sum * scale)")
            }
        }
        return (begun, ended)
    }

    private func value(_ place: Int, of rank: Int) -> Float {
        Float((place % 8_191 + rank * 13) % 101 - 50)
    }

    private static var now: Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) * 1e-9
    }

    private func all(_ layout: EffectLayout, _ mine: SlotContribution?) throws -> SlotContribution {
        step += 1
        let pool = pools[layout.gradientCount * 4] ?? BufferPool(layout)
        pools[layout.gradientCount * 4] = pool
        let buffers = StepBuffers(
            step: step, history: 0, layout: layout, slotCount: members.count, pool: pool)
        buffers.keep(slot: rank, mine ?? pool.take())
        var machine = ExchangeStateMachine(
            me: me, members: members, slotCount: members.count, blockCount: layout.blockCount)
        let stamp = BlockCarrier.Stamp(run: 1, fold: 0)
        func perform(_ actions: [ExchangeStateMachine.Action]) throws {
            for action in actions {
                switch action {
                case .sendPartial(let run, let blocks, let peer):
                    for block in blocks {
                        try carrier.sendPartial(run, block: block, of: buffers, stamp, to: peer)
                    }
                case .finish(let blocks): try buffers.finish(blocks, threads: 1)
                case .broadcast(let blocks, let names):
                    for block in blocks {
                        for name in names {
                            carrier.sendResult(block, of: buffers, stamp, to: name, keeps: false)
                        }
                    }
                default: break
                }
            }
        }
        func take(_ header: WireDataHeader, _ frame: Frame, from peer: String) throws {
            let block = Int(header.block)
            guard
                let payload = carrier.payload(
                    header, frame, from: peer, byteCount: layout.byteCount(block))
            else { throw BenchFailure("\(peer) sent a block that cannot be read") }
            let isKept: Bool
            if header.kind == .partial {
                let run = SlotRun(Int(header.low), Int(header.high))
                isKept = buffers.keepPartial(block, run: run, payload, digest: header.digest)
                try perform(machine.partialReceived(block, run: run))
            } else {
                isKept = buffers.keepResult(
                    block, payload, digest: header.digest, keepingParts: false)
                try perform(machine.resultReceived(block, digest: header.digest))
            }
            guard isKept else { throw BenchFailure("\(peer) sent a block that differs") }
        }
        try perform(machine.slotsComputed([rank]))
        for item in parked.take(step: step) { try take(item.header, item.payload, from: item.peer) }
        while !machine.isComplete {
            guard let frames = data.receive() else {
                Poller.wait([data], timeout: .milliseconds(100))
                continue
            }
            let header = try frames[1].withUnsafeBytes { bytes throws(ProtocolError) in
                try WireCodec.decodeHeader(bytes)
            }
            let peer = frames[0].text ?? ""
            if header.step == UInt64(step) {
                try take(header, frames[2], from: peer)
            } else {
                parked.park(.init(header: header, payload: frames[2], peer: peer))
            }
        }
        // Whoever has come this far has all of the step before from everybody.
        if let last { last.pool.recycle(last.buffers) }
        last = (buffers, pool)
        return buffers.effect
    }
}
