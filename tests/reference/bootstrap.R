# Reference values of refits and bootstraps: Rscript bootstrap.R [bootstrap.json]   (some minutes)
suppressPackageStartupMessages({ library(lme4); library(boot); library(jsonlite) })
args <- commandArgs(trailingOnly = TRUE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))))
out <- if (length(args)) args[1] else file.path(here, "bootstrap.json")

linear <- lmer(Reaction ~ Days + (Days | Subject), sleepstudy, REML = FALSE,
               control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10)))
binary <- glmer(cbind(incidence, size - incidence) ~ period + (1 | herd), cbpp, binomial,
                control = glmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9)))
# coefficients, sds and correlations term by term, residual sd
values <- function(m) { v <- as.data.frame(VarCorr(m)); c(unname(fixef(m)), v$sdcor) }
quant <- c(0.025, 0.25, 0.5, 0.75, 0.975)
described <- function(fit, nsim, seed) {
  b <- suppressWarnings(suppressMessages(bootMer(fit, values, nsim = nsim, seed = seed)))
  t <- b$t
  list(nsim = nsim, estimate = b$t0, mean = colMeans(t, na.rm = TRUE), sd = apply(t, 2, sd, na.rm = TRUE),
       probabilities = quant, quantiles = unname(t(apply(t, 2, quantile, quant, na.rm = TRUE, names = FALSE))))
}
refitted <- function(m) list(values = values(m), logLik = as.numeric(logLik(m)))

draws <- sin(1:199) + 0.3 * cos(7 * (1:199))^3          # boot.ci needs no randomness
b <- list(t0 = 0.2, t = matrix(draws), R = 199, call = quote(boot()), sim = "parametric")
class(b) <- "boot"
ci <- boot.ci(b, conf = 0.95, type = c("norm", "basic", "perc"))

json <- list(
  versions = list(R = as.character(getRversion()), lme4 = as.character(packageVersion("lme4")),
                  boot = as.character(packageVersion("boot"))),
  refit_linear = refitted(refit(linear, rev(sleepstudy$Reaction))),
  refit_binary = refitted(refit(binary, with(cbpp, cbind(size - incidence, incidence)))),
  intervals = list(estimate = 0.2, draws = draws, normal = ci$normal[2:3], basic = ci$basic[4:5], percentile = ci$percent[4:5]),
  boot_linear = described(linear, 4000, 1),
  boot_binary = described(binary, 1000, 1))
writeLines(toJSON(json, digits = NA, auto_unbox = TRUE, na = "null"), out)
