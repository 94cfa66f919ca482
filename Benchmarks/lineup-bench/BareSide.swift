import ArgumentParser
import Basics
import Datasets
import Foundation
import Images
import MetricLearning
import Settings
import Tensors
import Training

/// A process that makes steps on demand without a cluster: the bare side of every comparison.
///
/// Standard input: `steps N` makes N steps, `digest` asks for the weights' digest, `phases` for what
/// a step consists of. Each is answered by one line of JSON. The end of the input ends the process.
struct BareCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "bare",
        abstract: "Make steps without a cluster, as told on standard input.",
        discussion: "Example: echo 'steps 3' | lineup-bench bare --data-root CROPS"
    )

    @Option(help: "The data set's folder.")
    var dataRoot: String

    @Option(name: .customLong("set"), help: "Override a setting: KEY=VALUE, repeatable.")
    var overrides: [String] = []

    @Option(help: "Slots computed at once, one thread each.")
    var parallelSlots = 1

    @Option(help: "Steps whose images are decoded beforehand; later steps use them again.")
    var inputs = 1

    func run() throws {
        let settings = try Settings.resolve(paramsJSON: nil, overrides: overrides)
        try Engine.load()
        try Engine.setNumerics(.bitwise)
        let configuration = try TrainingConfiguration(settings: settings, device: .cpu)
        let slots = try decodedSlots(settings)
        let schedule = LearningRateSchedule(settings)
        let loop = try BareLoop(.initial(configuration), parallelSlots: parallelSlots)
        try answer(["libtorch": "\(try Engine.version()) \(try Engine.cpuCapability())"])
        while let line = readLine() {
            let words = line.split(separator: " ")
            switch words.first {
            case "steps":
                var seconds: [Double] = []
                for _ in 0..<(words.count > 1 ? Int(words[1]) ?? 1 : 1) {
                    let start = ContinuousClock.now
                    try loop.step(
                        slots[loop.state.step % slots.count],
                        learningRate: schedule.rate(updatesBefore: loop.state.step))
                    seconds.append((ContinuousClock.now - start).inSeconds)
                }
                try answer(["seconds": seconds])
            case "digest": try answer(["digest": try loop.state.weightsDigest(threads: 2).hex])
            case "phases":
                try answer(
                    try phases(loop, slots[loop.state.step % slots.count], schedule: schedule))
            default: throw BenchFailure("'\(line)' is neither steps N, digest nor phases")
            }
        }
    }

    /// Every slot of the first steps, decoded.
    private func decodedSlots(_ settings: Settings) throws -> [[SlotInput]] {
        let catalogue = try Catalogue(loading: dataRoot)
        let sampler = try PKSampler(
            catalogue: catalogue, identities: settings.batch.identities,
            imagesPerIdentity: settings.batch.imagesPerIdentity, seed: settings.seed)
        let input = InputConfiguration(settings: settings, isTraining: true)
        let loader = try ImageLoader(root: catalogue.root, input: input)
        let count = settings.batch.miniBatchesPerStep
        return try (0..<inputs).map { step in
            try (0..<count).map { slot in
                let drawn = sampler.slot(step: step, slot: slot, slotsPerStep: count)
                let images = FloatBuffer(count: drawn.indices.count * input.elementCount)
                for (place, index) in drawn.indices.enumerated() {
                    let start = place * input.elementCount
                    try loader.load(
                        catalogue.samples[index].path,
                        into: UnsafeMutableBufferPointer(
                            rebasing: images.floats[start..<start + input.elementCount]))
                }
                return SlotInput(images: images, labels: drawn.labels)
            }
        }
    }

    /// One step taken apart: slots with their fold, and apply.
    private func phases(
        _ loop: BareLoop, _ slots: [SlotInput], schedule: LearningRateSchedule
    ) throws -> [String: Double] {
        let clock = ContinuousClock()
        let start = clock.now
        let (_, effect) = try loop.compute(
            slots, learningRate: schedule.rate(updatesBefore: loop.state.step))
        let computed = clock.now
        _ = effect.digest(threads: parallelSlots)
        let digested = clock.now
        try apply(effect, to: loop.state, threads: parallelSlots)
        let applied = clock.now
        return [
            "compute_and_fold": (computed - start).inSeconds,
            "effect_digest": (digested - computed).inSeconds,
            "apply": (applied - digested).inSeconds,
        ]
    }

    private func answer(_ value: some Encodable) throws {
        let line = try JSONEncoder().encode(value) + Data([10])
        try FileHandle.standardOutput.write(contentsOf: line)
    }
}

extension Duration {
    var inSeconds: Double {
        let (whole, part) = components
        return Double(whole) + Double(part) * 1e-18
    }
}

/// A process that answers `steps N` with each step's seconds: the bare loop, or a peer.
final class StepServer {
    /// What it said of itself when it was ready.
    let introduction: [String: String]
    private let child: Child

    /// Starts it and waits until it is ready.
    init(
        _ name: String, executable: String, arguments: [String],
        environment: [String: String] = [:], log: String
    ) throws {
        child = try Child(
            name, executable: executable, arguments: arguments, environment: environment,
            log: log, answers: true)
        introduction = try Self.decode(child.line(within: 300), from: child)
    }

    /// The most memory that it has used at once.
    func peakMebibytes() throws -> Double {
        let answer: [String: [Double]] = try ask("peak", within: 60)
        return answer["peak_mib"]?.first ?? .nan
    }

    /// Seconds of each of the next steps.
    func steps(_ count: Int) throws -> [Double] {
        let answer: [String: [Double]] = try ask("steps \(count)", within: 600)
        guard let seconds = answer["seconds"], seconds.count == count else {
            throw BenchFailure("\(child.name) did not say how long \(count) steps took")
        }
        return seconds
    }

    /// Digest of the weights; the bare loop alone knows it.
    func digest() throws -> String {
        let answer: [String: String] = try ask("digest", within: 60)
        return answer["digest"] ?? ""
    }

    /// Seconds by phase of one more step; the bare loop alone knows them.
    func phases() throws -> [String: Double] { try ask("phases", within: 600) }

    func end() { child.end() }

    private func ask<Answer: Decodable>(_ line: String, within seconds: Double) throws -> Answer {
        try child.send(line)
        return try Self.decode(child.line(within: seconds), from: child)
    }

    private static func decode<Answer: Decodable>(
        _ line: String, from child: Child
    ) throws -> Answer {
        guard let answer = try? JSONDecoder().decode(Answer.self, from: Data(line.utf8)) else {
            throw BenchFailure("\(child.name) answered '\(line)'")
        }
        return answer
    }
}
