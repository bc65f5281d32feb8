# lme4's nAGQ = 0: Rscript nagq0.R DATA_DIRECTORY [nagq0.json]
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))))
source(file.path(here, "common.R"))
args <- data_dir(); dir <- args[1]
out <- if (length(args) > 1) args[2] else file.path(here, "nagq0.json")
tight <- glmerControl(tolPwrss = 1e-13,
                      optimizer = "bobyqa", optCtrl = list(rhoend = 1e-9, maxfun = 1e5))
CASES <- list(
  list(id = "grouseticks", dataset = "grouseticks", family = "poisson", factors = c("YEAR", "LOCATION", "INDEX"),
       formula = "TICKS ~ YEAR + (1|LOCATION) + (1|INDEX)"),
  list(id = "grouseticks_slopes", dataset = "grouseticks", family = "poisson", factors = c("YEAR", "LOCATION"),
       formula = "TICKS ~ YEAR + (YEAR|LOCATION)"),
  list(id = "cbpp", dataset = "cbpp", family = "binomial", factors = c("herd", "period"),
       formula = "cbind(incidence, size - incidence) ~ period + (1|herd)"),
  list(id = "verbagg", dataset = "verbagg", family = "binomial", factors = c("id", "item"),
       formula = "r2 ~ Anger + Gender + btype + situ + (1|id) + (1|item)")
)
one <- function(case) {
  d <- prepare(dir, case)
  fit <- glmer(as.formula(case$formula), d, family = case$family, nAGQ = 0, control = tight)
  c(case, list(loglik = as.numeric(logLik(fit)), coef = unname(fixef(fit)),
               std_error = unname(sqrt(diag(as.matrix(vcov(fit))))),
               vcov = unname(as.data.frame(VarCorr(fit))$sdcor)))
}
write_json(list(versions = versions(), cases = lapply(CASES, one)), out)
