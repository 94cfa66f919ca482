import Foundation

extension Part {
    /// Losses beside pytorch-metric-learning's, and alone where its memory would not suffice.
    static let losses: [Part] = [
        beside("batch_all", margin: "0.2", images: 1024, wanted: 3),
        beside("batch_hard", images: 1024),
        beside("generalized_lifted", images: 1024),
        beside("multi_similarity", images: 1024),
        beside("circle", images: 1024),
        beside("supervised_contrastive", images: 1024),
        beside("arcface", images: 256, identities: 10_000),
        beside("proxy_anchor", images: 256, identities: 10_000),
        // Theirs hold positive pairs times negative pairs: 13 GB a float at 1,024 images.
        beside("lifted", images: 256),
        beside("nt_xent", images: 256),
        alone("batch_all", margin: "0.2", perIdentity: 4),
        alone("batch_all", margin: "0.2", perIdentity: 256),
        alone("tf_batch_semi_hard", perIdentity: 4),
        alone("lifted", perIdentity: 4),
        alone("hap2s_polynomial", perIdentity: 4),
    ]

    private static func beside(
        _ loss: String, margin: String? = nil, images: Int, identities: Int? = nil,
        wanted: Double? = nil
    ) -> Part {
        let name = "losses-" + loss.replacing("_", with: "-")
        let what =
            "\(loss) of \(images) embeddings of 512, 4 an identity, "
            + (identities.map { "\($0) identities with vectors, " } ?? "")
            + "forward and backward: Lineup on "
            + "one thread beside pytorch-metric-learning on all cores"
        return Part(
            name: name, what: what,
            obstacle: {
                guard let python = $0.python else {
                    return "no Python with torch; name one with LINEUP_BENCH_PYTHON"
                }
                return hasPackage(python)
                    ? nil : "\(python) has no pytorch-metric-learning; install it there with pip"
            }
        ) { bench in
            let start = ContinuousClock.now
            let ours = try lossServer(
                bench, loss, margin, images: images, perIdentity: 4, identities: identities)
            let theirs = try StepServer(
                "pytorch-metric-learning", executable: bench.python!,
                arguments: [
                    bench.peers + "/pytorch_losses.py", "--loss", loss, "--images", "\(images)",
                    "--per-identity", "4", "--dimension", "512", "--threads",
                    "\(bench.machine.cores.count)",
                ] + (identities.map { ["--identities", "\($0)"] } ?? []),
                environment: ["PYTHONDONTWRITEBYTECODE": "1"],
                log: bench.folder + "/\(name)-peer.log")
            let servers = [ours, theirs]
            defer { for server in servers { server.end() } }
            for server in servers { _ = try server.steps(1) }
            var seconds: [[Double]] = [[], []]
            let rounds = bench.rounds ?? 9
            for round in 0..<rounds {
                for turn in 0..<2 {
                    let side = (round + turn) % 2
                    seconds[side].append(try servers[side].steps(1)[0])
                }
            }
            let ratio = Series(zip(seconds[1], seconds[0]).map { $0 / $1 })
            let peaks = try servers.map { String(format: "%.0f", try $0.peakMebibytes()) }
            return Measurement(
                name: name, what: what, unit: "s",
                sides: [
                    Side(name: "Lineup", series: Series(seconds[0])),
                    Side(name: "pytorch-metric-learning", series: Series(seconds[1])),
                ],
                ratios: [
                    Ratio(
                        of: "pytorch-metric-learning / Lineup", series: ratio,
                        wanted: wanted.map { "at least \($0)" },
                        isMet: wanted.map { ratio.median >= $0 })
                ],
                notes: [
                    "largest memory of the processes: \(peaks[0]) and \(peaks[1]) MiB; "
                        + "pytorch-metric-learning \(theirs.introduction["version"] ?? "?")"
                ], seconds: (ContinuousClock.now - start).inSeconds)
        }
    }

    private static func alone(
        _ loss: String, margin: String? = nil, perIdentity: Int
    ) -> Part {
        let name = "losses-4096-" + loss.replacing("_", with: "-") + "-\(perIdentity)"
        let what =
            "\(loss) of 4,096 embeddings of 512, \(perIdentity) an identity, forward and backward "
            + "on one thread"
        return Part(name: name, what: what) { bench in
            let start = ContinuousClock.now
            let server = try lossServer(
                bench, loss, margin, images: 4096, perIdentity: perIdentity)
            defer { server.end() }
            _ = try server.steps(1)
            let seconds = try server.steps(bench.rounds ?? 3)
            let peak = String(format: "%.0f", try server.peakMebibytes())
            return Measurement(
                name: name, what: what, unit: "s",
                sides: [Side(name: "Lineup", series: Series(seconds))], ratios: [],
                notes: ["largest memory of the process: \(peak) MiB"],
                seconds: (ContinuousClock.now - start).inSeconds)
        }
    }

    private static func lossServer(
        _ bench: Bench, _ loss: String, _ margin: String?, images: Int, perIdentity: Int,
        identities: Int? = nil
    ) throws -> StepServer {
        try StepServer(
            "Lineup's \(loss)", executable: bench.own,
            arguments: [
                "loss", "--loss", loss, "--images", "\(images)", "--per-identity",
                "\(perIdentity)",
            ] + (margin.map { ["--margin", $0] } ?? [])
                + (identities.map { ["--identities", "\($0)"] } ?? []),
            log: bench.folder + "/\(loss).log")
    }

    private static func hasPackage(_ python: String) -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: python)
        process.arguments = ["-c", "import pytorch_metric_learning"]
        process.standardError = FileHandle.nullDevice
        guard (try? process.run()) != nil else { return false }
        process.waitUntilExit()
        return process.terminationStatus == 0
    }
}
