/// An 8-bit RGB picture in memory: rows from the top, three bytes a pixel, no padding.
public struct PixelImage: Sendable, Equatable {
    /// Columns.
    public let width: Int
    /// Rows.
    public let height: Int
    /// `height * width * 3` bytes in the order red, green, blue.
    public var pixels: [UInt8]

    /// Wraps pixels that are there already; traps when their number does not fit the size.
    public init(width: Int, height: Int, pixels: [UInt8]) {
        precondition(
            width > 0 && height > 0 && pixels.count == width * height * 3,
            "\(pixels.count) bytes do not make a \(width)x\(height) RGB image")
        self.width = width
        self.height = height
        self.pixels = pixels
    }

    /// A picture of one colour.
    public init(width: Int, height: Int, red: UInt8 = 0, green: UInt8 = 0, blue: UInt8 = 0) {
        var pixels = [UInt8](repeating: red, count: width * height * 3)
        if green != red || blue != red {
            for place in stride(from: 0, to: pixels.count, by: 3) {
                pixels[place + 1] = green
                pixels[place + 2] = blue
            }
        }
        self.init(width: width, height: height, pixels: pixels)
    }

    /// The mean of each channel, cut off to an integer as numpy stores it into bytes.
    public var meanColour: (red: UInt8, green: UInt8, blue: UInt8) {
        var sums = (0, 0, 0)
        pixels.withUnsafeBufferPointer { bytes in
            var place = 0
            while place < bytes.count {
                sums.0 += Int(bytes[place])
                sums.1 += Int(bytes[place + 1])
                sums.2 += Int(bytes[place + 2])
                place += 3
            }
        }
        let count = width * height
        return (UInt8(sums.0 / count), UInt8(sums.1 / count), UInt8(sums.2 / count))
    }

    /// A window of the picture; what lies outside of it gets the colour `fill`.
    ///
    /// - Parameters:
    ///   - left: first column, which may be negative.
    ///   - top: first row, which may be negative.
    public func cropped(
        left: Int, top: Int, width cropWidth: Int, height cropHeight: Int,
        fill: (red: UInt8, green: UInt8, blue: UInt8) = (0, 0, 0)
    ) -> PixelImage {
        var result =
            left >= 0 && top >= 0 && left + cropWidth <= width && top + cropHeight <= height
            ? PixelImage(width: cropWidth, height: cropHeight)
            : PixelImage(
                width: cropWidth, height: cropHeight, red: fill.red, green: fill.green,
                blue: fill.blue)
        let firstColumn = max(left, 0)
        let columns = min(left + cropWidth, width) - firstColumn
        let firstRow = max(top, 0)
        let endRow = min(top + cropHeight, height)
        guard columns > 0, firstRow < endRow else { return result }
        result.pixels.withUnsafeMutableBytes { target in
            pixels.withUnsafeBytes { source in
                for row in firstRow..<endRow {
                    let from = (row * width + firstColumn) * 3
                    let to = ((row - top) * cropWidth + firstColumn - left) * 3
                    UnsafeMutableRawBufferPointer(rebasing: target[to..<to + columns * 3])
                        .copyMemory(
                            from: UnsafeRawBufferPointer(
                                rebasing: source[from..<from + columns * 3]))
                }
            }
        }
        return result
    }

    /// The picture mirrored left to right.
    public func flipped() -> PixelImage {
        var result = self
        for row in 0..<height {
            for column in 0..<width {
                let from = (row * width + column) * 3
                let to = (row * width + width - 1 - column) * 3
                for channel in 0..<3 { result.pixels[to + channel] = pixels[from + channel] }
            }
        }
        return result
    }
}
