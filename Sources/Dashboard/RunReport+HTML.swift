import Foundation

extension RunReport {
    /// The report as one self-contained page: no script, no request to anywhere.
    public var html: String {
        var page = Self.head(title: "\(run): \(lastStep) steps")
        page += "<h1>\(Self.escaped(run))</h1>\n"
        page += "<p>\(lastStep) steps in <code>\(Self.escaped(folder))</code>, weights "
        page += "<code>\(Self.escaped(weights))</code></p>\n"
        page += scoreTable
        page += faultList
        page += rankingRows
        return page + "</body></html>\n"
    }

    private static func head(title: String) -> String {
        """
        <!doctype html>
        <html lang="en"><head><meta charset="utf-8"><title>\(escaped(title))</title>
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <style>
        body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem;
               color: #1c1c1c; background: #fff }
        table { border-collapse: collapse; margin: 1rem 0 }
        th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd }
        th:first-child, td:first-child { text-align: left }
        .row { display: flex; gap: .5rem; margin: .6rem 0; overflow-x: auto }
        figure { margin: 0; flex: none; width: 100px; font-size: .75rem; text-align: center }
        figure img { width: 92px; height: 92px; border: 4px solid #ccc; display: block }
        figure.anchor img { border-color: #444 }
        figure.right img { border-color: #2a8f3c }
        figure.wrong img { border-color: #c8372d }
        @media (prefers-color-scheme: dark) { body { color: #eee; background: #181818 }
               th, td { border-color: #444 } }
        </style></head><body>

        """
    }

    private var scoreTable: String {
        guard !rows.isEmpty else { return "" }
        var text = "<h2>Scores: \(legend)</h2>\n<table><tr><th></th>"
        for set in sets { text += "<th>\(Self.escaped(set))</th>" }
        text += "</tr>\n"
        for row in rows {
            text += "<tr><td>\(Self.escaped(row.label))</td>"
            for cell in row.cells { text += "<td>\(Self.escaped(cell))</td>" }
            text += "</tr>\n"
        }
        return text + "</table>\n" + (turn.map { "<p>\(Self.escaped($0))</p>\n" } ?? "")
    }

    private var faultList: String {
        guard !faults.isEmpty || evaluationCost != nil else { return "" }
        var text = "<h2>What held training up</h2>\n<ul>"
        for fault in faults {
            text += "<li>\(Self.escaped(fault.text)) after step \(fault.step): "
            text += "\(Spoken.fixed(fault.seconds, 1)) s</li>\n"
        }
        if let cost = evaluationCost {
            text += "<li>evaluation: \(Spoken.fixed(cost * 100, 1)) % of training time</li>\n"
        }
        return text + "</ul>\n"
    }

    private var rankingRows: String {
        guard !rankings.isEmpty else { return "" }
        var text = "<h2>\(Self.escaped(rankedSet)): candidates from near to far</h2>\n"
        text += "<p>Dark: the question. Green: the same object. Red: an object ranked before it. "
        text += "Under each picture its distance.</p>\n"
        for ranking in rankings {
            text += "<div class=\"row\">"
            text += Self.figure(ranking.anchor, "anchor", "anchor")
            var isBeforePositive = true
            for candidate in ranking.candidates {
                if candidate.isPositive { isBeforePositive = false }
                let kind = candidate.isPositive ? "right" : isBeforePositive ? "wrong" : "other"
                text += Self.figure(candidate, kind, Spoken.short(candidate.distance))
            }
            text += "</div>\n"
        }
        return text
    }

    private static func figure(
        _ picture: Ranking.Picture, _ kind: String, _ caption: String
    ) -> String {
        let source = "data:image/jpeg;base64," + Data(picture.jpeg).base64EncodedString()
        return "<figure class=\"\(kind)\"><img src=\"\(source)\" alt=\"\(escaped(picture.path))\" "
            + "title=\"\(escaped(picture.path))\"><figcaption>\(escaped(caption))</figcaption></figure>"
    }

    private static func escaped(_ text: String) -> String {
        var result = ""
        for character in text {
            switch character {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            default: result.append(character)
            }
        }
        return result
    }
}
