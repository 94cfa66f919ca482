import Basics
import Foundation
public import Images
public import Networks
public import Tensors

/// What this machine makes of a small synthetic slot, as one digest: two machines of the same description
/// whose libraries or kernels differ in a bit are told apart before they compute anything real.
///
/// Pictures are encoded, decoded and resized as training images are, and go through the run's own
/// network, whose weights are made here for the probe: a run's first weights may take seconds to make,
/// and may come from a file that only its first trainer has.
public enum NumericsProbe {
    /// Identities and images of each: enough for every loss, and a fraction of a slot's work.
    private static let identities = 2
    private static let imagesMax = 2

    /// Decode, forward, loss and backward.
    ///
    /// - Parameters:
    ///   - input: how training images are prepared.
    ///   - imagesPerIdentity: K of the run; more than 2 are not needed.
    /// - Throws: what decoding, networks, losses and tensors throw.
    public static func digest(
        training configuration: TrainingConfiguration, input: InputConfiguration,
        imagesPerIdentity: Int
    ) throws -> UInt64 {
        let images = max(1, min(imagesPerIdentity, imagesMax))
        let isOfTriplets = configuration.loss.parts.contains { $0.name.isOfTriplets }
        let labels =
            isOfTriplets ? [0, 0, 1, 1, 1, 0] : (0..<identities * images).map { $0 / images }
        let numbers = ProbeNumbers()
        let state = try TrainingState.filled(configuration) { parameter, index, values in
            numbers.fill(values, shape: parameter.shape, index: index)
        }
        let gradient = FloatBuffer(count: state.layout.elementCount)
        let pictures = try pictures(labels.count, input)
        let result = try withExtendedLifetime(pictures) {
            try SlotComputer(configuration).compute(
                images: UnsafePointer(pictures.base), labels: labels, state: state, into: gradient)
        }
        var hash = XXH64()
        hash.update(UnsafeRawBufferPointer(gradient.floats))
        hash.update(UInt64(result.loss.bitPattern))
        result.batchStatistics.withUnsafeBytes { hash.update($0) }
        result.embeddings.withUnsafeBytes { hash.update($0) }
        return hash.finish()
    }

    /// Decode and forward, as evaluators embed images.
    ///
    /// - Throws: what decoding, networks and tensors throw.
    public static func digest(
        embedding network: NetworkConfiguration, input: InputConfiguration, device: Device,
        precision: Precision
    ) throws -> UInt64 {
        let count = identities * imagesMax
        let network = try Network(network)
        let numbers = ProbeNumbers()
        var tensors: [String: (shape: [Int], values: FloatBuffer)] = [:]
        for (index, parameter) in network.parameters.enumerated() {
            let values = FloatBuffer(count: parameter.shape.reduce(1, *))
            numbers.fill(values.floats, shape: parameter.shape, index: index)
            tensors["network/" + parameter.name] = (parameter.shape, values)
        }
        for buffer in network.buffers {
            let values = FloatBuffer(count: buffer.shape.reduce(1, *))
            values.floats.update(repeating: buffer.initialValue)
            tensors["network/" + buffer.name] = (buffer.shape, values)
        }
        let embedder = try Embedder(network.configuration, device: device, precision: precision) {
            name in tensors[name].map { ($0.shape, UnsafeRawBufferPointer($0.values.floats)) }
        }
        let pictures = try pictures(count, input)
        let embeddings = try withExtendedLifetime(pictures) {
            try embedder.embed(UnsafePointer(pictures.base), count: count)
        }
        return embeddings.withUnsafeBytes { XXH64.digest($0) }
    }

    /// Pictures of slopes and noise, each another, `[count, 3, height, width]`.
    private static func pictures(
        _ count: Int, _ input: InputConfiguration
    ) throws(ImageError) -> FloatBuffer {
        let loader = try ImageLoader(root: "/", input: input)
        let buffer = FloatBuffer(count: count * input.elementCount)
        for place in 0..<count {
            var random = CounterRandom(seed: 1, item: UInt64(place), purpose: .audit)
            let (width, height) = (61 + place, 83)
            let pixels = (0..<width * height * 3).map { at in
                let slope = at / 3 % width * (place + 1) + at / (3 * width) * 2
                return UInt8(truncatingIfNeeded: slope + random.index(below: 48))
            }
            let picture = try JPEG.decode(
                JPEG.encode(PixelImage(width: width, height: height, pixels: pixels)),
                name: "a picture of the numerics probe")
            loader.prepare(
                picture, augmentation: random,
                into: UnsafeMutableBufferPointer(
                    rebasing: buffer.floats[
                        place * input.elementCount..<(place + 1) * input.elementCount]))
        }
        return buffer
    }
}

/// Weights of a probe: a short list of random numbers over and over, scaled by the number of inputs.
private struct ProbeNumbers: Sendable {
    private let numbers: [Float]

    init() {
        var random = CounterRandom(seed: 2, purpose: .audit)
        numbers = (0..<8_191).map { _ in Float(2 * random.uniform() - 1) }
    }

    func fill(_ values: UnsafeMutableBufferPointer<Float>, shape: [Int], index: Int) {
        // Scales and shifts are not far from a half, so that nothing vanishes or grows beyond measure.
        let isVector = shape.count < 2
        let inputs = shape.dropFirst().reduce(1, *)
        let (scale, shift) =
            isVector ? (Float(0.25), Float(0.5)) : ((3 / Float(inputs)).squareRoot(), 0)
        var next = index * 97 % numbers.count
        for at in values.indices {
            values[at] = shift + scale * numbers[next]
            next = next + 1 == numbers.count ? 0 : next + 1
        }
    }
}

extension Device {
    /// The processor's or GPU's model as one word, for a numerics class.
    ///
    /// - Throws: ``TensorError`` where a GPU does not answer.
    public func modelWord() throws -> String {
        let name = kind == .cpu ? Self.processor : try model()
        return name.split { $0.isWhitespace }.joined(separator: "_")
    }

    /// As the kernel names it; processors that have no such name are told apart by their kind alone.
    private static let processor: String = {
        let text = (try? String(contentsOfFile: "/proc/cpuinfo", encoding: .utf8)) ?? ""
        let line = text.split(separator: "\n").first { $0.hasPrefix("model name") }
        return line?.split(separator: ":").last.map(String.init) ?? "unknown"
    }()
}
