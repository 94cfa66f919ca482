import Images

/// One frame's annotation in the form of ILSVRC2015 VID.
package struct FrameAnnotation: Sendable, Equatable {
    /// One object in the frame.
    package struct Object: Sendable, Equatable {
        package var track: Int
        package var category: String
        package var occluded: Bool
        package var box: Box
    }

    package var folder: String
    package var fileName: String
    package var width: Int?
    package var height: Int?
    package var objects: [Object]

    /// Reads an annotation file.
    ///
    /// - Throws: ``DatasetError`` naming the file and the line.
    package init(parsing bytes: [UInt8], name: String) throws(DatasetError) {
        let root = try XMLElement.parse(bytes, name: name)
        guard root.name == "annotation" else {
            throw DatasetError(
                .malformed,
                "\(name):\(root.line): the root is <\(root.name)>; expected <annotation>")
        }
        folder = try root.only("folder", name)?.text ?? ""
        fileName = try root.needed("filename", name).text
        let size = try root.only("size", name)
        width = try size?.only("width", name)?.integer(name)
        height = try size?.only("height", name)?.integer(name)
        objects = []
        for child in root.children where child.name == "object" {
            objects.append(try Self.object(child, name))
        }
    }

    /// Of a box, in pixels: pictures end far within.
    private static let coordinates = -(1 << 20)...(1 << 20)

    private static func object(_ element: XMLElement, _ name: String) throws(DatasetError)
        -> Object
    {
        let track = try element.needed("trackid", name)
        let number = try track.integer(name)
        guard number >= 0 else {
            throw DatasetError(
                .malformed, "\(name):\(track.line): <trackid> is \(number); expected 0 or more")
        }
        let occluded = try element.needed("occluded", name)
        guard occluded.text == "0" || occluded.text == "1" else {
            throw DatasetError(
                .malformed,
                "\(name):\(occluded.line): <occluded> is '\(occluded.text)'; expected 0 or 1")
        }
        let border = try element.needed("bndbox", name)
        let box = Box(
            xmin: try border.needed("xmin", name).integer(name),
            ymin: try border.needed("ymin", name).integer(name),
            xmax: try border.needed("xmax", name).integer(name),
            ymax: try border.needed("ymax", name).integer(name))
        guard box.xmin <= box.xmax, box.ymin <= box.ymax,
            [box.xmin, box.ymin, box.xmax, box.ymax].allSatisfy(Self.coordinates.contains)
        else {
            throw DatasetError(
                .malformed,
                "\(name):\(border.line): <bndbox> is x \(box.xmin)...\(box.xmax), y \(box.ymin)"
                    + "...\(box.ymax); expected xmin <= xmax and ymin <= ymax")
        }
        return Object(
            track: number, category: try element.needed("name", name).text,
            occluded: occluded.text == "1", box: box)
    }
}

/// An element of a small XML file.
///
/// Reads what annotation files use: elements, text, comments, CDATA, the declaration and the
/// predefined entities. Attributes are skipped; document types are refused.
struct XMLElement: Sendable {
    var name: String
    var line: Int
    /// The element's own text, without white space at its ends.
    var text: String
    var children: [XMLElement]

    /// The one child of that name, or nil.
    func only(_ child: String, _ file: String) throws(DatasetError) -> XMLElement? {
        let found = children.filter { $0.name == child }
        guard found.count <= 1 else {
            throw DatasetError(
                .malformed,
                "\(file):\(found[1].line): <\(child)> is in <\(name)> twice; expected once")
        }
        return found.first
    }

    /// The one child of that name.
    func needed(_ child: String, _ file: String) throws(DatasetError) -> XMLElement {
        guard let found = try only(child, file) else {
            throw DatasetError(.malformed, "\(file):\(line): <\(name)> has no <\(child)>")
        }
        return found
    }

    /// The text as a whole number.
    func integer(_ file: String) throws(DatasetError) -> Int {
        guard let value = Int(text) else {
            throw DatasetError(
                .malformed, "\(file):\(line): <\(name)> is '\(text)'; expected a whole number")
        }
        return value
    }

    /// Reads a whole document.
    static func parse(_ bytes: [UInt8], name: String) throws(DatasetError) -> XMLElement {
        var reader = XMLReader(bytes: bytes, file: name)
        return try reader.document()
    }
}

private struct XMLReader {
    private static let depthMax = 32

    let bytes: [UInt8]
    let file: String
    var place = 0
    var line = 1

    init(bytes: [UInt8], file: String) {
        self.bytes = bytes
        self.file = file
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { place = 3 }
    }

    mutating func document() throws(DatasetError) -> XMLElement {
        guard bytes.contains(where: { !isSpace($0) }) else {
            throw DatasetError(.malformed, "\(file):1: the file is empty; expected <annotation>")
        }
        try skipBetweenElements()
        guard peek == UInt8(ascii: "<") else {
            throw wrong("text before the first element; expected <annotation>")
        }
        let root = try element(depth: 0)
        try skipBetweenElements()
        guard place == bytes.count else { throw wrong("text after </\(root.name)>") }
        return root
    }

    private mutating func element(depth: Int) throws(DatasetError) -> XMLElement {
        guard depth < Self.depthMax else {
            throw wrong("elements are nested deeper than \(Self.depthMax)")
        }
        let startLine = line
        advance()
        let name = try elementName()
        let isEmpty = try skipAttributes(name)
        var result = XMLElement(name: name, line: startLine, text: "", children: [])
        if isEmpty { return result }
        var text: [UInt8] = []
        while true {
            guard let byte = peek else {
                throw wrong("the file ends inside <\(name)>, opened on line \(startLine)")
            }
            if byte == UInt8(ascii: "&") {
                text += try entity()
            } else if byte != UInt8(ascii: "<") {
                text.append(byte)
                advance()
            } else if starts("</") {
                advance(2)
                let closing = try elementName()
                skipSpace()
                guard closing == name, peek == UInt8(ascii: ">") else {
                    throw wrong(
                        "</\(closing)> closes <\(name)>, opened on line \(startLine)")
                }
                advance()
                result.text = trimmed(text)
                return result
            } else if starts("<!--") {
                try skip(past: "-->", what: "a comment")
            } else if starts("<![CDATA[") {
                advance(9)
                let first = place
                try skip(past: "]]>", what: "a CDATA section")
                text += bytes[first..<place - 3]
            } else if starts("<?") {
                try skip(past: "?>", what: "an instruction")
            } else {
                result.children.append(try element(depth: depth + 1))
            }
        }
    }

    private mutating func elementName() throws(DatasetError) -> String {
        let first = place
        while let byte = peek, isNameByte(byte) { advance() }
        guard place > first else { throw wrong("'<' without an element's name") }
        return String(decoding: bytes[first..<place], as: UTF8.self)
    }

    /// Skips to the end of a start tag and says whether the element ends with it.
    private mutating func skipAttributes(_ name: String) throws(DatasetError) -> Bool {
        var quote: UInt8?
        while let byte = peek {
            if let open = quote {
                if byte == open { quote = nil }
            } else if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") {
                quote = byte
            } else if byte == UInt8(ascii: ">") {
                advance()
                return false
            } else if starts("/>") {
                advance(2)
                return true
            } else if byte == UInt8(ascii: "<") {
                break
            }
            advance()
        }
        throw wrong("<\(name)> has no closing '>'")
    }

    private mutating func skipBetweenElements() throws(DatasetError) {
        while true {
            skipSpace()
            if starts("<!--") {
                try skip(past: "-->", what: "a comment")
            } else if starts("<?") {
                try skip(past: "?>", what: "an instruction")
            } else if starts("<!") {
                throw wrong("a document type is not supported")
            } else {
                return
            }
        }
    }

    private mutating func entity() throws(DatasetError) -> [UInt8] {
        let end = bytes[place..<min(place + 12, bytes.count)].firstIndex(of: UInt8(ascii: ";"))
        guard let end else { throw wrong("'&' without an entity; expected such as &amp;") }
        let name = String(decoding: bytes[place + 1..<end], as: UTF8.self)
        let value: String
        switch name {
        case "amp": value = "&"
        case "lt": value = "<"
        case "gt": value = ">"
        case "quot": value = "\""
        case "apos": value = "'"
        default:
            let code =
                name.hasPrefix("#x")
                ? UInt32(name.dropFirst(2), radix: 16)
                : name.hasPrefix("#") ? UInt32(name.dropFirst()) : nil
            guard let scalar = code.flatMap(Unicode.Scalar.init) else {
                throw wrong("unknown entity '&\(name);'")
            }
            value = String(Character(scalar))
        }
        advance(end + 1 - place)
        return Array(value.utf8)
    }

    private mutating func skip(past mark: String, what: String) throws(DatasetError) {
        let startLine = line
        while place < bytes.count {
            if starts(mark) {
                advance(mark.utf8.count)
                return
            }
            advance()
        }
        throw wrong("\(what) opened on line \(startLine) does not end")
    }

    private mutating func skipSpace() {
        while let byte = peek, isSpace(byte) { advance() }
    }

    private var peek: UInt8? { place < bytes.count ? bytes[place] : nil }

    private func starts(_ text: String) -> Bool { bytes[place...].starts(with: text.utf8) }

    private mutating func advance(_ count: Int = 1) {
        for _ in 0..<count where place < bytes.count {
            if bytes[place] == UInt8(ascii: "\n") { line += 1 }
            place += 1
        }
    }

    private func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09
    }

    private func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
            UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "-"),
            UInt8(ascii: "."), UInt8(ascii: ":"), 0x80...:
            true
        default: false
        }
    }

    private func trimmed(_ text: [UInt8]) -> String {
        guard let first = text.firstIndex(where: { !isSpace($0) }),
            let last = text.lastIndex(where: { !isSpace($0) })
        else { return "" }
        return String(decoding: text[first...last], as: UTF8.self)
    }

    private func wrong(_ what: String) -> DatasetError {
        DatasetError(.malformed, "\(file):\(line): \(what)")
    }
}
