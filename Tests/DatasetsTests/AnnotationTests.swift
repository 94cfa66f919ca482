import Datasets
import Testing

@Suite struct AnnotationTests {
    private func parse(_ text: String) throws -> FrameAnnotation {
        try FrameAnnotation(parsing: Array(text.utf8), name: "f.xml")
    }

    private func message(_ text: String) -> String {
        let error = #expect(throws: DatasetError.self) { try parse(text) }
        #expect(error?.code == .malformed)
        return error?.message ?? ""
    }

    @Test func objectsKeepTheirOrder() throws {
        let parsed = try parse(
            annotationText(
                "000003", [Annotated(4, 1, 2, 3, 4), Annotated(1, 5, 6, 7, 8, occluded: true)]))
        #expect(parsed.fileName == "000003")
        #expect(parsed.objects.map(\.track) == [4, 1])
        #expect(parsed.objects.map(\.occluded) == [false, true])
        #expect(parsed.objects[0].box == Box(xmin: 1, ymin: 2, xmax: 3, ymax: 4))
    }

    @Test func realFilesFormsAreRead() throws {
        let parsed = try parse(
            """
            \u{FEFF}<?xml version="1.0"?>
            <!-- made by hand -->
            <annotation verified='yes > no'>
            \t<filename>000001</filename>
            \t<size><width>640</width><height> 360 </height></size>
            \t<empty/>
            \t<object>
            \t\t<trackid>0</trackid><name>fish &amp; <![CDATA[<chips>]]> &#65;&#x42;</name>
            \t\t<bndbox><xmax>9</xmax><xmin>0</xmin><ymax>9</ymax><ymin>0</ymin></bndbox>
            \t\t<occluded>1</occluded>
            \t</object>
            </annotation>
            <!-- end -->
            """)
        #expect(parsed.width == 640 && parsed.height == 360)
        #expect(parsed.objects.map(\.category) == ["fish & <chips> AB"])
    }

    @Test func frameWithoutObjectsIsRead() throws {
        #expect(try parse(annotationText("000001", [])).objects.isEmpty)
    }

    @Test(arguments: [
        ("", "f.xml:1: the file is empty"),
        (" \n \n", "f.xml:1: the file is empty"),
        ("hello", "f.xml:1: text before the first element"),
        ("<html></html>", "f.xml:1: the root is <html>"),
        ("<annotation>\n<filename>1</filename>\n", "f.xml:3: the file ends inside <annotation>"),
        ("<annotation>\n</object>", "f.xml:2: </object> closes <annotation>, opened on line 1"),
        ("<annotation>\n</annotation>", "f.xml:1: <annotation> has no <filename>"),
        ("<annotation><filename>1</filename></annotation>x", "f.xml:1: text after </annotation>"),
        ("<annotation", "f.xml:1: <annotation> has no closing '>'"),
        ("<annotation><a>&wrong;</a></annotation>", "unknown entity '&wrong;'"),
        ("<!DOCTYPE a><annotation/>", "f.xml:1: a document type is not supported"),
        ("<annotation><!-- ", "a comment opened on line 1 does not end"),
        ("<annotation>< ></annotation>", "'<' without an element's name"),
    ])
    func brokenFilesNameTheLine(text: String, expected: String) {
        #expect(message(text).contains(expected), "\(message(text))")
    }

    @Test(arguments: [
        ("<trackid>0</trackid>", "<trackid>x</trackid>", "<trackid> is 'x'"),
        ("<trackid>0</trackid>", "<trackid>-1</trackid>", "<trackid> is -1"),
        ("<trackid>0</trackid>", "", "<object> has no <trackid>"),
        ("<xmin>2</xmin>", "<xmin>22</xmin>", "<bndbox> is x 22...9"),
        ("<xmin>2</xmin>", "<xmin>2</xmin><xmin>2</xmin>", "<xmin> is in <bndbox> twice"),
        ("<xmin>2</xmin>", "<xmin>-99999999999</xmin>", "<bndbox> is x -99999999999...9"),
        ("<xmin>2</xmin>", "<xmin>\(Int.min)</xmin>", "<bndbox> is x \(Int.min)...9"),
        ("<occluded>0</occluded>", "<occluded>no</occluded>", "<occluded> is 'no'"),
    ])
    func wrongValuesAreNamed(old: String, new: String, expected: String) {
        let text = annotationText("000001", [Annotated(0, 2, 2, 9, 9)])
        #expect(message(text.replacing(old, with: new)).contains(expected))
    }

    @Test func everyTruncationIsAnErrorNotATrap() {
        let bytes = Array(annotationText("000001", [Annotated(0, 2, 2, 9, 9)]).utf8)
        for length in 0..<bytes.count - 2 {
            #expect(throws: DatasetError.self) {
                try FrameAnnotation(parsing: Array(bytes.prefix(length)), name: "cut.xml")
            }
        }
    }

    @Test func deepNestingIsRefused() {
        let text = String(repeating: "<a>", count: 10_000)
        #expect(message(text).contains("nested deeper than 32"))
    }

    @Test func squareFollowsTheReference() throws {
        let lines = try Expected.lines("crop")
        #expect(lines.count == 6)
        for line in lines {
            let box = Box(
                xmin: line.integer(0), ymin: line.integer(1), xmax: line.integer(2),
                ymax: line.integer(3))
            let square = CropSquare(box, context: 0.01)
            #expect(square.side == line.integer(4))
            #expect(square.left == line.integer(5) && square.top == line.integer(6))
        }
    }
}
