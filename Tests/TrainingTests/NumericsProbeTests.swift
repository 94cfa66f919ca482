import Basics
import Images
import MetricLearning
import Networks
import Synchronization
import Tensors
import Testing
import Training

/// The digest by which machines of different arithmetic are told apart.
@Suite struct NumericsProbeTests {
    private static func training(
        _ configuration: TrainingConfiguration = Fixtures.basic(), crop: Bool = true
    ) throws -> UInt64 {
        try NumericsProbe.digest(
            training: configuration,
            input: InputConfiguration(
                height: 20, width: 12, flip: true, crop: crop, cropFromHeight: 24,
                cropFromWidth: 14), imagesPerIdentity: 18)
    }

    private static func embedding(_ precision: Precision = .fp32) throws -> UInt64 {
        try NumericsProbe.digest(
            embedding: Fixtures.basic().network, input: InputConfiguration(height: 20, width: 12),
            device: .cpu, precision: precision)
    }

    @Test func itIsTheSameOnEveryThread() throws {
        let (training, embedding) = (try Self.training(), try Self.embedding())
        let digests = Mutex<[UInt64]>([])
        Parallel.run(parts: 3) { _, _ in
            guard let again = try? [Self.training(), Self.embedding()] else { return }
            digests.withLock { $0 += again }
        }
        #expect(digests.withLock { $0.count } == 6)
        #expect(Set(digests.withLock { $0 }) == [training, embedding])
    }

    /// What changes a slot's arithmetic changes it: input, precision, network, loss.
    @Test func whateverDecidesBitsDecidesIt() throws {
        var other = Fixtures.basic()
        other.network.batchNorm.toggle()
        var smaller = Fixtures.basic()
        smaller.network.head = .fc1024
        let digests = try [
            Self.training(), Self.training(crop: false),
            Self.training(Fixtures.basic(precision: .bf16)), Self.training(other),
            Self.training(smaller), Self.embedding(), Self.embedding(.bf16),
        ]
        #expect(Set(digests).count == digests.count, "\(digests)")
    }

    /// Every loss that a run may have takes a slot this small.
    @Test(arguments: LossName.allCases)
    func everyLossCanBeProbed(loss: LossName) throws {
        var configuration = Fixtures.basic(loss: LossConfiguration(name: loss))
        configuration.classCount = 2
        _ = try Self.training(configuration)
    }
}
