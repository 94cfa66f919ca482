import Datasets
import Testing

@Suite struct ProgressMeterTests {
    private func line(
        _ done: Int, skipped: Int = 0, total: Int = 200, seconds: Double, bar: Int = 0
    ) -> String {
        ProgressMeter.line(
            label: "crop", done: done, skipped: skipped, total: total, unit: "frames",
            seconds: seconds, barWidth: bar)
    }

    @Test func lineSaysRateAndTimeLeft() {
        #expect(line(50, seconds: 2) == "crop 50/200 frames  25 %  25/s  0:06 left")
        #expect(line(2, seconds: 4) == "crop 2/200 frames  1 %  0.5/s  6:36 left")
    }

    @Test func keptPiecesDoNotRaiseTheRate() {
        #expect(
            line(150, skipped: 100, seconds: 2)
                == "crop 150/200 frames  75 %  25/s  0:02 left  100 were there")
    }

    @Test func terminalLineHasABar() {
        #expect(
            line(100, seconds: 1, bar: 8)
                == "crop [####....] 100/200 frames  50 %  100/s  0:01 left")
    }

    @Test func lastLineSaysHowLongItTook() {
        #expect(line(200, seconds: 4000) == "crop 200/200 frames  100 %  0.1/s  took 1:06:40")
        #expect(line(0, total: 0, seconds: 0) == "crop 0/0 frames  100 %  took 0:00")
    }
}
