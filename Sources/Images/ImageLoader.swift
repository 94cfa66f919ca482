public import Basics

/// Size and digest of a file, as a catalogue lists them.
public struct ImageFingerprint: Sendable, Hashable {
    /// Bytes of the file.
    public let byteCount: Int
    /// XXH64 of the file's bytes.
    public let digest: UInt64

    /// States what a file must be.
    public init(byteCount: Int, digest: UInt64) {
        self.byteCount = byteCount
        self.digest = digest
    }

    /// Measures bytes.
    public init(of bytes: [UInt8]) {
        byteCount = bytes.count
        digest = bytes.withUnsafeBytes { XXH64.digest($0) }
    }
}

/// Turns JPEG files into network inputs: read, check, decode, resize, vary, normalise.
///
/// Any number of threads may load at once. What is loaded is a pure function of the file, the
/// configuration and the random stream.
public struct ImageLoader: Sendable {
    /// Folder that relative paths start from.
    public let root: String
    /// What comes out.
    public let input: InputConfiguration

    /// Makes a loader for the files below `root`.
    ///
    /// - Throws: ``ImageError`` with code `invalidSize` for a configuration that makes no sense.
    public init(root: String, input: InputConfiguration) throws(ImageError) {
        try input.check()
        self.root = root.hasSuffix("/") ? String(root.dropLast()) : root
        self.input = input
    }

    /// Loads one image as three planes of `height` x `width` floats: red, green, blue.
    ///
    /// - Parameters:
    ///   - path: relative to ``root``, or absolute.
    ///   - expected: what the catalogue says of the file; nil leaves it unchecked.
    ///   - augmentation: the random stream that varies the image; nil for evaluation, which resizes
    ///     the whole image straight to the input's size. The first number decides the flip, the
    ///     next two the crop's row and column, the others what is covered.
    ///   - step: how far training is, from 1; what is covered may grow with it.
    ///   - target: exactly ``InputConfiguration/elementCount`` floats.
    /// - Throws: ``ImageError`` naming the file: missing, unreadable, not the catalogued bytes, or
    ///   not a whole JPEG.
    public func load(
        _ path: String, expecting expected: ImageFingerprint? = nil,
        augmentation: CounterRandom? = nil, step: Int = 1,
        into target: UnsafeMutableBufferPointer<Float>
    ) throws(ImageError) {
        precondition(
            target.count == input.elementCount,
            "a buffer of \(target.count) floats was given for \(input.elementCount)")
        let file = path.hasPrefix("/") ? path : "\(root)/\(path)"
        try JPEG.pooled { (decoder) throws(ImageError) in
            try FileBytes.read(file, into: &decoder.file)
            if let expected {
                try Self.check(decoder.file, name: file, expected)
            }
            try decoder.decodeFile(name: file)
            decoder.pixels.withUnsafeBufferPointer {
                fill(target, from: $0, decoder.width, decoder.height, augmentation, step)
            }
        }
    }

    /// Turns a decoded picture into the network's input, as ``load(_:expecting:augmentation:into:)``
    /// does with a file.
    public func prepare(
        _ image: PixelImage, augmentation: CounterRandom? = nil, step: Int = 1,
        into target: UnsafeMutableBufferPointer<Float>
    ) {
        precondition(
            target.count == input.elementCount,
            "a buffer of \(target.count) floats was given for \(input.elementCount)")
        image.pixels.withUnsafeBufferPointer {
            fill(target, from: $0, image.width, image.height, augmentation, step)
        }
    }

    /// Throws unless the bytes are the catalogued ones.
    private static func check(
        _ bytes: [UInt8], name: String, _ expected: ImageFingerprint
    ) throws(ImageError) {
        guard bytes.count == expected.byteCount else {
            throw ImageError(
                .differs,
                "\(name) has \(bytes.count) bytes, the catalogue says \(expected.byteCount); "
                    + "restore the file or make the data set again")
        }
        let digest = ImageFingerprint(of: bytes).digest
        guard digest == expected.digest else {
            throw ImageError(
                .differs,
                "\(name) has digest \(digest.hex), the catalogue says \(expected.digest.hex); "
                    + "restore the file or make the data set again")
        }
    }

    private func fill(
        _ target: UnsafeMutableBufferPointer<Float>, from source: UnsafeBufferPointer<UInt8>,
        _ sourceWidth: Int, _ sourceHeight: Int, _ augmentation: CounterRandom?, _ step: Int
    ) {
        var (fullHeight, fullWidth, top, left) = (input.height, input.width, 0, 0)
        var mirrored = false
        var random = augmentation
        if random != nil {
            if input.flip { mirrored = random!.uniform() < 0.5 }
            if input.crop {
                (fullHeight, fullWidth) = (input.cropFromHeight, input.cropFromWidth)
                top = random!.index(below: fullHeight - input.height + 1)
                left = random!.index(below: fullWidth - input.width + 1)
            }
        }
        let rows = input.kernel.taps(from: sourceHeight, to: fullHeight)[top..<top + input.height]
        var columns = Array(
            input.kernel.taps(from: sourceWidth, to: fullWidth)[left..<left + input.width])
        if mirrored { columns.reverse() }
        let plane = input.height * input.width
        let (factor, offset) = input.normalisation.coefficients
        let (factor0, factor1, factor2) = (factor[0], factor[1], factor[2])
        let (offset0, offset1, offset2) = (offset[0], offset[1], offset[2])
        columns.withUnsafeBufferPointer { columns in
            var place = target.baseAddress!
            for row in rows {
                let upper = source.baseAddress! + row.low * sourceWidth * 3
                let lower = source.baseAddress! + row.high * sourceWidth * 3
                for column in columns {
                    let (a, b) = (column.low * 3, column.high * 3)
                    let x = column.weight
                    let y = row.weight
                    place[0] =
                        blend(upper[a], upper[b], lower[a], lower[b], x, y) * factor0 + offset0
                    place[plane] =
                        blend(upper[a + 1], upper[b + 1], lower[a + 1], lower[b + 1], x, y)
                        * factor1 + offset1
                    place[2 * plane] =
                        blend(upper[a + 2], upper[b + 2], lower[a + 2], lower[b + 2], x, y)
                        * factor2 + offset2
                    place += 1
                }
            }
        }
        guard random != nil, !input.occlusion.isNone else { return }
        Occlusion.cover(
            target, height: input.height, width: input.width,
            share: input.occlusion.share(step: step), &random!)
    }
}

/// The bilinear mean of four bytes, in the order of operations that TensorFlow uses.
@inline(__always)
private func blend(
    _ topLeft: UInt8, _ topRight: UInt8, _ bottomLeft: UInt8, _ bottomRight: UInt8, _ x: Float,
    _ y: Float
) -> Float {
    let top = Float(topLeft) + (Float(topRight) - Float(topLeft)) * x
    let bottom = Float(bottomLeft) + (Float(bottomRight) - Float(bottomLeft)) * x
    return top + (bottom - top) * y
}
