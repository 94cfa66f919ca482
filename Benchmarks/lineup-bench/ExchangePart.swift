import FaultRig
import Foundation

extension Part {
    /// The exchange of gradients beside Gloo, PyTorch's for processors.
    static let exchange = Part(
        name: "exchange",
        what:
            "all-reduce (mean) over 4 processes of this machine: Lineup's exchange through memory "
            + "and over TCP beside Gloo, from the first member's beginning to the last one's end",
        obstacle: { $0.python == nil ? "there is no Python with torch" : nil },
        measure: measureExchange)

    private static let memberCount = 4
    private static let sizes = [64 << 10, 1 << 20, 16 << 20, 64 << 20]

    private static func measureExchange(_ bench: Bench) throws -> Measurement {
        let start = ContinuousClock.now
        let names = ["Lineup, memory", "Lineup, TCP", "Gloo"]
        let groups = [
            try ReduceGroup.lineup(bench, count: memberCount, isRemote: false),
            try ReduceGroup.lineup(bench, count: memberCount, isRemote: true),
            try ReduceGroup.gloo(bench, count: memberCount),
        ]
        defer { for group in groups { group.end() } }
        let rounds = bench.rounds ?? 9
        var sides: [Side] = []
        var ratios: [Ratio] = []
        for size in sizes {
            let count = size <= 1 << 20 ? 40 : 5
            var seconds = [[Double]](repeating: [], count: groups.count)
            for group in groups { _ = try group.reduce(size, count) }
            for round in 0..<rounds {
                // Another side begins each round.
                for turn in groups.indices {
                    let side = (round + turn) % groups.count
                    seconds[side].append(Series.median(try groups[side].reduce(size, count)))
                }
                let numbers = seconds.map { String(format: "%.5f", $0[round]) }
                say(
                    "exchange \(size >> 10) KiB, round \(round + 1) of \(rounds): "
                        + numbers.joined(separator: ", ") + " s")
            }
            let text = size < 1 << 20 ? "\(size >> 10) KiB" : "\(size >> 20) MiB"
            for (name, series) in zip(names, seconds) {
                sides.append(Side(name: "\(text): \(name)", series: Series(series)))
            }
            for side in 0..<2 {
                let ratio = Series(zip(seconds[2], seconds[side]).map { $0 / $1 })
                let wanted = goal(size, isRemote: side == 1)
                ratios.append(
                    Ratio(
                        of: "\(text): Gloo / \(names[side])", series: ratio,
                        wanted: wanted.map { "at least \($0)" },
                        isMet: wanted.map { ratio.median >= $0 }))
            }
        }
        return Measurement(
            name: exchange.name, what: exchange.what, unit: "seconds", sides: sides, ratios: ratios,
            notes: [
                "every member checks the mean; Lineup's is the same for every number of members"
            ],
            seconds: (ContinuousClock.now - start).inSeconds)
    }

    /// How many times as fast as Gloo.
    private static func goal(_ size: Int, isRemote: Bool) -> Double? {
        guard isRemote else { return size == 64 << 20 ? 1.5 : nil }
        return size <= 64 << 10 ? 5 : size <= 16 << 20 ? 1 : 0.95
    }
}

/// Processes that reduce together.
private final class ReduceGroup {
    private struct Times: Decodable {
        let begun: [Double]
        let ended: [Double]
    }

    private let members: [Child]

    private init(_ members: [Child]) { self.members = members }

    static func lineup(_ bench: Bench, count: Int, isRemote: Bool) throws -> ReduceGroup {
        let members = try (0..<count).map { rank in
            try Child(
                "exchange member \(rank)", executable: bench.own,
                arguments: ["exchange-member", "--rank", "\(rank)"]
                    + (isRemote ? ["--remote"] : []),
                log: bench.folder + "/exchange-\(rank).log", answers: true)
        }
        let addresses = try members.map { member in
            let line = try member.line(within: 60)
            guard
                let answer = try? JSONDecoder().decode(
                    [String: String].self, from: Data(line.utf8)),
                let address = answer["address"]
            else { throw BenchFailure("\(member.name) answered '\(line)'") }
            return address
        }
        for member in members { try member.send(addresses.joined(separator: "|")) }
        return ReduceGroup(members)
    }

    static func gloo(_ bench: Bench, count: Int) throws -> ReduceGroup {
        let port = try TCP.freePort()
        let members = try (0..<count).map { rank in
            try Child(
                "Gloo member \(rank)", executable: bench.python!,
                arguments: [
                    bench.peers + "/gloo_allreduce.py", "--rank", "\(rank)", "--world", "\(count)",
                    "--port", "\(port)",
                ], environment: ["PYTHONDONTWRITEBYTECODE": "1"],
                log: bench.folder + "/gloo-\(rank).log", answers: true)
        }
        for member in members { _ = try member.line(within: 120) }
        return ReduceGroup(members)
    }

    /// Seconds of each all-reduce.
    func reduce(_ size: Int, _ count: Int) throws -> [Double] {
        for member in members { try member.send("reduce \(size) \(count)") }
        let times = try members.map { member in
            let line = try member.line(within: 300)
            guard let times = try? JSONDecoder().decode(Times.self, from: Data(line.utf8)),
                times.begun.count == count, times.ended.count == count
            else { throw BenchFailure("\(member.name) answered '\(line)'") }
            return times
        }
        return (0..<count).map { turn in
            times.map { $0.ended[turn] }.max()! - times.map { $0.begun[turn] }.min()!
        }
    }

    func end() { for member in members { member.end() } }
}
