import ArgumentParser
import Basics
import Foundation
import MetricLearning
import Tensors

#if canImport(Glibc)
    import Glibc
#endif

/// A process that computes a loss and its gradient on demand, on one thread.
///
/// Standard input: `steps N` does it N times, `peak` asks for the largest memory so far. Each is
/// answered by one line of JSON. The end of the input ends the process.
struct LossCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "loss",
        abstract: "Compute a loss and its gradient, as told on standard input.",
        discussion: "Example: echo 'steps 3' | lineup-bench loss --loss batch_all"
    )

    @Option(help: "The loss.")
    var loss: String

    @Option(help: "The margin: a number, soft or none; the loss's own where not given.")
    var margin: String?

    @Option(help: "Rows of the mini-batch.")
    var images = 1024

    @Option(help: "Rows of each identity.")
    var perIdentity = 4

    @Option(help: "Identities with a vector each, where the loss has such.")
    var identities = 1000

    @Option(help: "Numbers in an embedding.")
    var dimension = 512

    func run() throws {
        try Engine.setIntraOpThreads(1)
        guard let name = LossName(rawValue: loss) else {
            throw ValidationError("there is no loss '\(loss)'")
        }
        let given = margin.flatMap { Margin($0) }
        guard margin == nil || given != nil else {
            throw ValidationError("--margin is '\(margin!)'; write a number, soft or none")
        }
        let metricLoss = try MetricLoss(LossConfiguration(name: name, margin: given))
        let labels = (0..<images).map { $0 / perIdentity }
        try Engine.seedGenerators(1)
        func random(_ rows: Int) throws -> Tensor {
            try callTensorOperator("aten::randn", [.ints([rows, dimension]), .dtype(.float32)])
                / Double(dimension).squareRoot()
        }
        let tensors = try [random(images)] + (name.hasClasses ? [random(identities)] : [])
        try answer(["loss": loss])
        while let line = readLine() {
            let words = line.split(separator: " ")
            if words == ["peak"] {
                var usage = rusage()
                getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
                try answer(["peak_mib": [Double(usage.ru_maxrss) / 1024]])
                continue
            }
            guard words.count == 2, words[0] == "steps", let steps = Int(words[1]) else {
                throw BenchFailure("'\(line)' is neither steps N nor peak")
            }
            var seconds: [Double] = []
            for _ in 0..<steps {
                let start = ContinuousClock.now
                let leaves = try tensors.map { try $0.detach().requiresGradient() }
                let result = try metricLoss(
                    leaves[0], labels: labels, classes: Array(leaves.dropFirst()))
                _ = try gradients(of: result.loss, withRespectTo: leaves)
                seconds.append((ContinuousClock.now - start).inSeconds)
            }
            try answer(["seconds": seconds])
        }
    }

    private func answer(_ value: some Encodable) throws {
        let line = try JSONEncoder().encode(value) + Data([10])
        try FileHandle.standardOutput.write(contentsOf: line)
    }
}
