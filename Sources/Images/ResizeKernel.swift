/// How a picture is brought to another size.
///
/// Neither kernel smooths before it shrinks.
public enum ResizeKernel: String, Sendable, Hashable, CaseIterable {
    /// Bilinear about pixel centres, as OpenCV and TensorFlow 2 do.
    case bilinear
    /// Bilinear about pixel corners, as TensorFlow 1 did: source = target * (in / out).
    case legacyBilinear = "legacy_bilinear"

    /// For every target place: both source places and the weight of the second.
    func taps(from source: Int, to target: Int) -> [Tap] {
        let scale = Double(source) / Double(target)
        return (0..<target).map { place in
            let position =
                switch self {
                case .bilinear: max((Double(place) + 0.5) * scale - 0.5, 0)
                case .legacyBilinear: Double(place) * scale
                }
            let low = min(Int(position), source - 1)
            return Tap(
                low: low, high: min(low + 1, source - 1),
                weight: low == source - 1 ? 0 : Float(position - Double(low)))
        }
    }

    /// One target place along one axis.
    struct Tap {
        var low: Int
        var high: Int
        var weight: Float
    }
}

extension PixelImage {
    /// The picture at another size, rounded to bytes the way OpenCV's `resize` does it.
    ///
    /// Weights are 11-bit integers and sums are shifted exactly as in OpenCV's bilinear kernel for
    /// bytes, so that crops equal those of the earlier tools.
    public func resized(
        width newWidth: Int, height newHeight: Int, kernel: ResizeKernel = .bilinear
    ) -> PixelImage {
        if newWidth == width, newHeight == height { return self }
        let columns = kernel.taps(from: width, to: newWidth).map(FixedTap.init)
        let rows = kernel.taps(from: height, to: newHeight).map(FixedTap.init)
        let rowBytes = newWidth * 3
        var upper = [Int32](repeating: 0, count: rowBytes)
        var lower = upper
        var (upperRow, lowerRow) = (-1, -1)
        var result = PixelImage(width: newWidth, height: newHeight)
        pixels.withUnsafeBufferPointer { source in
            result.pixels.withUnsafeMutableBufferPointer { target in
                for (row, tap) in rows.enumerated() {
                    if tap.low != upperRow {
                        if tap.low == lowerRow {
                            swap(&upper, &lower)
                            (upperRow, lowerRow) = (lowerRow, upperRow)
                        } else {
                            Self.stretch(source, row: tap.low, width, columns, into: &upper)
                            upperRow = tap.low
                        }
                    }
                    if tap.high != lowerRow {
                        Self.stretch(source, row: tap.high, width, columns, into: &lower)
                        lowerRow = tap.high
                    }
                    let out = target.baseAddress! + row * rowBytes
                    upper.withUnsafeBufferPointer { upper in
                        lower.withUnsafeBufferPointer { lower in
                            for place in 0..<rowBytes {
                                let sum =
                                    ((tap.lowWeight &* (upper[place] >> 4)) >> 16)
                                    &+ ((tap.highWeight &* (lower[place] >> 4)) >> 16) &+ 2
                                out[place] = UInt8(truncatingIfNeeded: sum >> 2)
                            }
                        }
                    }
                }
            }
        }
        return result
    }

    private static func stretch(
        _ source: UnsafeBufferPointer<UInt8>, row: Int, _ width: Int, _ columns: [FixedTap],
        into target: inout [Int32]
    ) {
        let start = source.baseAddress! + row * width * 3
        target.withUnsafeMutableBufferPointer { target in
            columns.withUnsafeBufferPointer { columns in
                var out = target.baseAddress!
                for tap in columns {
                    let low = start + tap.low * 3
                    let high = start + tap.high * 3
                    out[0] = Int32(low[0]) &* tap.lowWeight &+ Int32(high[0]) &* tap.highWeight
                    out[1] = Int32(low[1]) &* tap.lowWeight &+ Int32(high[1]) &* tap.highWeight
                    out[2] = Int32(low[2]) &* tap.lowWeight &+ Int32(high[2]) &* tap.highWeight
                    out += 3
                }
            }
        }
    }

    /// A tap with 11-bit weights.
    private struct FixedTap {
        let low: Int
        let high: Int
        let lowWeight: Int32
        let highWeight: Int32

        init(_ tap: ResizeKernel.Tap) {
            low = tap.low
            high = tap.high
            lowWeight = Int32(((1 - tap.weight) * 2048).rounded(.toNearestOrEven))
            highWeight = Int32((tap.weight * 2048).rounded(.toNearestOrEven))
        }
    }
}
