import Basics
import Foundation
import Networks
import Tensors
import Testing

@Suite struct NetworkTests {
    static func values(_ network: Network, seed: UInt64 = 1) throws -> [Tensor] {
        try network.parameters.enumerated().map { index, spec in
            var floats = [Float](repeating: 0, count: spec.count)
            floats.withUnsafeMutableBufferPointer {
                spec.initializer.fill($0, shape: spec.shape, seed: seed, index: index)
            }
            return try Tensor(floats, shape: spec.shape)
        }
    }

    static func images(_ batch: Int, _ height: Int, _ width: Int) throws -> Tensor {
        var random = CounterRandom(seed: 2, purpose: .dataset)
        let floats = (0..<batch * 3 * height * width).map { _ in Float(random.uniform() - 0.5) }
        return try Tensor(floats, shape: [batch, 3, height, width])
    }

    @Test func resnetHasTorchvisionsNamesAndSizes() throws {
        let network = try Network(NetworkConfiguration(backbone: .resnet50, head: .none))
        #expect(network.parameters.count == 159)
        #expect(network.parameters.reduce(0) { $0 + $1.count } == 23_508_032)
        #expect(network.buffers.count == 106)
        #expect(network.embeddingDimension == 2048)
        let shapes = Dictionary(
            uniqueKeysWithValues: network.parameters.map { ($0.name, $0.shape) })
        #expect(shapes["conv1.weight"] == [64, 3, 7, 7])
        #expect(shapes["layer1.0.downsample.0.weight"] == [256, 64, 1, 1])
        #expect(shapes["layer3.5.conv2.weight"] == [256, 256, 3, 3])
        #expect(shapes["layer4.2.bn3.bias"] == [2048])
        #expect(network.buffers[0].name == "bn1.running_mean")
        #expect(network.buffers.last?.name == "layer4.2.bn3.running_var")
        #expect(
            Array(network.parameters.prefix(4).map(\.name)) == [
                "conv1.weight", "bn1.weight", "bn1.bias", "layer1.0.conv1.weight",
            ])
    }

    @Test(arguments: Head.allCases) func headsGiveEmbeddingsOfTheirSize(_ head: Head) throws {
        let network = try Network(
            NetworkConfiguration(
                backbone: .basic, head: head, embeddingDimension: 10, inputHeight: 9,
                inputWidth: 14, channels: 4))
        #expect(network.featureCount == 8 * 2 * 3)
        let statistics = try BatchStatistics(network, device: .cpu)
        let embeddings = try network.forward(
            Self.images(6, 9, 14), parameters: Self.values(network),
            batchNorm: .training(statistics))
        #expect(embeddings.shape == [6, head == .none ? 48 : 10])
        let floats = try embeddings.floats()
        if head == .directNormalize || head == .fc1024Normalize {
            for row in 0..<6 {
                let square = floats[row * 10..<row * 10 + 10].reduce(0) { $0 + $1 * $1 }
                #expect(abs(square - 1) < 1e-5)
            }
        }
    }

    @Test func resnetReducesBy32() throws {
        let network = try Network(
            NetworkConfiguration(
                backbone: .resnet50, head: .fc1024, embeddingDimension: 8, inputHeight: 64,
                inputWidth: 32))
        let statistics = try BatchStatistics(network, device: .cpu)
        let images = try Self.images(2, 64, 32)
        let parameters = try Self.values(network)
        let embeddings = try network.forward(
            images, parameters: parameters, batchNorm: .training(statistics))
        #expect(embeddings.shape == [2, 8])
        #expect(try embeddings.floats().allSatisfy { $0.isFinite })
        #expect(try statistics.values().count == 2 * (26_560 + 1024))
    }

    @Test func batchNormLeavesTheBatchsMeanAndUnbiasedVariance() throws {
        let network = try Network(
            NetworkConfiguration(
                backbone: .basic, embeddingDimension: 4, inputHeight: 6, inputWidth: 5, channels: 2)
        )
        let parameters = try Self.values(network)
        let images = try Self.images(3, 6, 5)
        let statistics = try BatchStatistics(network, device: .cpu)
        _ = try network.forward(images, parameters: parameters, batchNorm: .training(statistics))
        let first = try images.conv2d(weight: parameters[0], padding: 1).floats()  // [3, 2, 6, 5]
        let values = try statistics.values()
        for channel in 0..<2 {
            var column: [Double] = []
            for image in 0..<3 {
                let start = (image * 2 + channel) * 30
                column += first[start..<start + 30].map { Double($0) }
            }
            let mean = column.reduce(0, +) / 90
            var squares = 0.0
            for value in column { squares += (value - mean) * (value - mean) }
            let variance = squares / 89
            #expect(abs(Double(values[channel]) - mean) < 1e-6)
            #expect(abs(Double(values[2 + channel]) - variance) < 1e-6)
        }
    }

    @Test func evaluationUsesTheGivenAverages() throws {
        let network = try Network(
            NetworkConfiguration(
                backbone: .basic, embeddingDimension: 4, inputHeight: 8, inputWidth: 8, channels: 2)
        )
        let parameters = try Self.values(network)
        let images = try Self.images(3, 8, 8)
        let buffers = try network.buffers.map { try Tensor.full($0.shape, Double($0.initialValue)) }
        let whole = try network.forward(
            images, parameters: parameters, batchNorm: .evaluation(buffers)
        ).floats()
        let one = try network.forward(
            images.narrow(0, start: 1, length: 1), parameters: parameters,
            batchNorm: .evaluation(buffers)
        ).floats()
        for (left, right) in zip(whole[4..<8], one) { #expect(abs(left - right) < 1e-5) }
    }

    @Test func wrongSizesAndNamesAreRefused() throws {
        #expect(throws: NetworkError.self) {
            try NetworkConfiguration(
                backbone: "resnet51", head: "direct", embeddingDimension: 8, inputHeight: 64,
                inputWidth: 64)
        }
        #expect(throws: NetworkError.self) {
            try Network(NetworkConfiguration(backbone: .resnet50, inputHeight: 16, inputWidth: 64))
        }
        let network = try Network(
            NetworkConfiguration(
                backbone: .basic, embeddingDimension: 4, inputHeight: 8, inputWidth: 8))
        let statistics = try BatchStatistics(network, device: .cpu)
        let error = #expect(throws: NetworkError.self) {
            try network.forward(
                Self.images(2, 8, 9), parameters: Self.values(network),
                batchNorm: .training(statistics))
        }
        #expect(error?.message.contains("[2, 3, 8, 9]") == true)
    }
}
