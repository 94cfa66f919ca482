internal import CTurboJPEG
internal import Synchronization

/// JPEG in and out, by libjpeg-turbo.
///
/// Decoding uses the accurate integer DCT and smooth chroma upsampling, encoding 4:2:0: what
/// OpenCV and Pillow do. What libjpeg only warns about, a file that ends early or damaged data, is
/// an error here.
public enum JPEG {
    /// Release of libjpeg-turbo that this was built with, such as `2.1.5`; `unknown` where its headers
    /// do not say.
    public static let libraryVersion: String = {
        let release = Int(lineup_libjpeg_turbo_release())
        guard release > 0 else { return "unknown" }
        return "\(release / 1_000_000).\(release / 1_000 % 1_000).\(release % 1_000)"
    }()

    /// Pixels along the longer side at most; more is refused as damaged.
    public static let sideMax = 16_384

    /// Decodes to RGB whatever the file's own colour space.
    ///
    /// - Parameter name: what the error message calls the image, usually its path.
    /// - Throws: ``ImageError`` with code `notJPEG`, `corrupt` or `unsupported`.
    public static func decode(_ bytes: [UInt8], name: String) throws(ImageError) -> PixelImage {
        try pooled { (decoder) throws(ImageError) in
            try decoder.decode(bytes, name: name)
            return PixelImage(
                width: decoder.width, height: decoder.height,
                pixels: Array(decoder.pixels.prefix(decoder.width * decoder.height * 3)))
        }
    }

    /// Reads and decodes one file.
    ///
    /// - Throws: ``ImageError`` naming the path.
    public static func read(_ path: String) throws(ImageError) -> PixelImage {
        try decode(FileBytes.read(path), name: path)
    }

    /// The size that a JPEG's header states, without decoding it.
    ///
    /// - Throws: ``ImageError`` with code `notJPEG`, `corrupt` or `unsupported`.
    public static func size(_ bytes: [UInt8], name: String) throws(ImageError) -> (
        width: Int, height: Int
    ) {
        try pooled { (decoder) throws(ImageError) in
            try decoder.readHeader(bytes, name: name)
            return (decoder.width, decoder.height)
        }
    }

    /// Encodes at `quality` (1 to 100) with 4:2:0 chroma.
    ///
    /// - Throws: ``ImageError`` with code `invalidSize` when libjpeg-turbo refuses.
    public static func encode(_ image: PixelImage, quality: Int = 90) throws(ImageError)
        -> [UInt8]
    {
        let handle = encoders.take() ?? Handle(tjInitCompress())
        defer { encoders.giveBack(handle) }
        guard let compressor = handle.pointer else {
            throw ImageError(.unsupported, "libjpeg-turbo could not start an encoder")
        }
        let width = Int32(image.width)
        let height = Int32(image.height)
        var size = tjBufSize(width, height, Int32(TJSAMP_420.rawValue))
        var failed = false
        let bytes = [UInt8](unsafeUninitializedCapacity: Int(size)) { buffer, count in
            var start = buffer.baseAddress
            failed =
                tjCompress2(
                    compressor, image.pixels, width, 0, height, Int32(TJPF_RGB.rawValue), &start,
                    &size, Int32(TJSAMP_420.rawValue), Int32(quality), TJFLAG_NOREALLOC) != 0
            count = failed ? 0 : Int(size)
        }
        guard !failed else {
            throw ImageError(
                .invalidSize,
                "a \(image.width)x\(image.height) image cannot be written as JPEG of quality "
                    + "\(quality): \(String(cString: tjGetErrorStr2(compressor)))")
        }
        return bytes
    }

    /// Runs `body` with a decoder that nobody else uses meanwhile.
    static func pooled<Result>(
        _ body: (Decoder) throws(ImageError) -> Result
    ) throws(ImageError) -> Result {
        let decoder = decoders.take() ?? Decoder()
        defer { decoders.giveBack(decoder) }
        return try body(decoder)
    }

    private static let decoders = Pool<Decoder>()
    private static let encoders = Pool<Handle>()

    /// Things that cost something to make, handed out one to a caller.
    private final class Pool<Element: AnyObject>: Sendable {
        private struct Idle: @unchecked Sendable {
            // @unchecked: an element is either here, under the mutex, or with one caller.
            var elements: [Element] = []
        }
        private let idle = Mutex(Idle())

        func take() -> Element? {
            idle.withLock { $0.elements.popLast() }
        }

        func giveBack(_ element: Element) {
            let box = Idle(elements: [element])
            idle.withLock { if $0.elements.count < 64 { $0.elements += box.elements } }
        }
    }

    /// A TurboJPEG handle that is released with its owner.
    private final class Handle {
        let pointer: tjhandle?

        init(_ pointer: tjhandle?) { self.pointer = pointer }

        deinit { if let pointer { tjDestroy(pointer) } }
    }

    /// One TurboJPEG decompressor with the buffers it fills; for one thread at a time.
    final class Decoder {
        private var handle = Handle(tjInitDecompress())
        /// The file's bytes, when the caller reads into the decoder.
        var file: [UInt8] = []
        /// The decoded RGB bytes; the first `width * height * 3` count.
        private(set) var pixels: [UInt8] = []
        private(set) var width = 0
        private(set) var height = 0

        func readHeader(_ bytes: [UInt8], name: String) throws(ImageError) {
            guard let decompressor = handle.pointer else {
                throw ImageError(.unsupported, "libjpeg-turbo could not start a decoder")
            }
            guard bytes.count >= 2, bytes[0] == 0xFF, bytes[1] == 0xD8 else {
                throw ImageError(
                    .notJPEG,
                    bytes.isEmpty
                        ? "\(name) is empty; expected a JPEG"
                        : "\(name) is not a JPEG: it begins with "
                            + "\(bytes.prefix(4).map { hexadecimal($0) }.joined(separator: " ")), "
                            + "expected ff d8")
            }
            var (wide, high, subsampling, colourSpace) = (Int32(0), Int32(0), Int32(0), Int32(0))
            let status = tjDecompressHeader3(
                decompressor, bytes, UInt(bytes.count), &wide, &high, &subsampling, &colourSpace)
            guard status == 0, wide > 0, high > 0 else { throw damaged(bytes, name) }
            guard wide <= JPEG.sideMax, high <= JPEG.sideMax else {
                throw ImageError(
                    .unsupported,
                    "\(name) is \(wide)x\(high); at most \(JPEG.sideMax) pixels a side are read")
            }
            guard colourSpace != Int32(TJCS_CMYK.rawValue),
                colourSpace != Int32(TJCS_YCCK.rawValue)
            else {
                throw ImageError(
                    .unsupported, "\(name) is a CMYK JPEG; expected RGB or grey: convert it first")
            }
            width = Int(wide)
            height = Int(high)
        }

        func decode(_ bytes: [UInt8], name: String) throws(ImageError) {
            try readHeader(bytes, name: name)
            let count = width * height * 3
            if pixels.count < count { pixels = [UInt8](repeating: 0, count: count) }
            let status = tjDecompress2(
                handle.pointer, bytes, UInt(bytes.count), &pixels, Int32(width), 0, Int32(height),
                Int32(TJPF_RGB.rawValue), 0)
            // Bytes between two markers lose nothing, and real cameras write them.
            guard status == 0 || reason().contains("extraneous bytes before marker") else {
                throw damaged(bytes, name)
            }
        }

        func decodeFile(name: String) throws(ImageError) {
            try decode(file, name: name)
        }

        /// The error for damaged bytes.
        ///
        /// libjpeg-turbo 2.1 may keep the state of a header that broke off and then refuses the
        /// next file, so that the decompressor is replaced.
        private func damaged(_ bytes: [UInt8], _ name: String) -> ImageError {
            let error = ImageError(
                .corrupt, "\(name) is a damaged JPEG (\(bytes.count) bytes): \(reason())")
            handle = Handle(tjInitDecompress())
            return error
        }

        private func reason() -> String {
            String(cString: tjGetErrorStr2(handle.pointer))
        }
    }
}

private func hexadecimal(_ byte: UInt8) -> String {
    (byte < 16 ? "0" : "") + String(byte, radix: 16)
}
