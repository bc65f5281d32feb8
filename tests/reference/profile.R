# Profile-likelihood intervals: Rscript profile.R DATA_DIRECTORY [profile.json]
# lme4's confint(profile()) with steps a third of its default ones, MASS's confint for glm.
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))))
source(file.path(here, "common.R"))
args <- data_dir(); dir <- args[1]
out <- if (length(args) > 1) args[2] else file.path(here, "profile.json")

lin <- function(id, dataset, formula, ...) model(id = id, dataset = dataset, engine = "lmer", formula = formula, ...)
CASES <- list(
  lin("sleepstudy", "sleepstudy", "Reaction ~ Days + (Days|Subject)", factors = "Subject"),
  lin("sleepstudy_reml", "sleepstudy", "Reaction ~ Days + (Days|Subject)", factors = "Subject", reml = TRUE),
  lin("sleepstudy_zerocorr", "sleepstudy", "Reaction ~ Days + (Days||Subject)", factors = "Subject"),
  lin("dyestuff", "dyestuff", "Yield ~ 1 + (1|Batch)"),
  lin("dyestuff2", "dyestuff2", "Yield ~ 1 + (1|Batch)"),
  lin("penicillin", "penicillin", "diameter ~ 1 + (1|plate) + (1|sample)"),
  model(id = "cbpp", dataset = "cbpp", engine = "glmer", family = "binomial", link = "logit",
        formula = "cbind(incidence, size - incidence) ~ period + (1|herd)", factors = c("herd", "period")),
  model(id = "grouseticks", dataset = "grouseticks", engine = "glmer", family = "poisson", link = "log",
        formula = "TICKS ~ YEAR + (1|LOCATION)", factors = c("YEAR", "LOCATION")),
  model(id = "contra_agq9", dataset = "contra", engine = "glmer", family = "binomial", link = "logit", nagq = 9,
        formula = "use ~ age + urban + (1|dist)"),
  model(id = "glm_titanic", dataset = "titanic", engine = "glm", family = "binomial", link = "logit",
        formula = "survived ~ sex + age"),
  model(id = "glm_grouseticks", dataset = "grouseticks", engine = "glm", family = "poisson", link = "log",
        formula = "TICKS ~ YEAR", factors = "YEAR")
)

one <- function(case) {
  d <- prepare(dir, case); f <- as.formula(case$formula); t0 <- proc.time()[[3]]
  if (case$engine == "lmer") {
    m <- lme4::lmer(f, d, REML = case$reml, control = lmerControl(optimizer = "nloptwrap", optCtrl = list(xtol_abs = 1e-10, ftol_abs = 1e-10, maxeval = 1e5)))
  } else if (case$engine == "glmer") {
    m <- lme4::glmer(f, d, family = family_of(case), nAGQ = case$nagq,
                     control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-12, optCtrl = list(rhoend = 1e-9, maxfun = 1e5)))
  } else m <- glm(f, d, family = family_of(case), control = list(epsilon = 1e-14, maxit = 200))
  r <- describe(case, d)
  if (case$engine == "glm") {
    p <- suppressMessages(MASS:::profile.glm(m, alpha = 0.001, del = 0.3, maxsteps = 40))
  } else {
    start <- proc.time()[[3]]; profile(m, signames = FALSE); r$seconds_default <- proc.time()[[3]] - start
    p <- profile(m, signames = FALSE, delta.cutoff = 1/24, maxpts = 400)
  }
  for (level in c(0.8, 0.95, 0.99)) {
    ci <- suppressMessages(confint(p, level = level))
    r[[paste0("level_", level * 100)]] <- rows(ci)
    r$names <- I(rownames(ci))
  }
  cat(r$id, proc.time()[[3]] - t0, "s, default profile", r$seconds_default, "\n", file = stderr())
  r
}
res <- mclapply(CASES, function(c) tryCatch(one(c), error = function(e) { message("FAILED ", c$id, ": ", conditionMessage(e)); NULL }),
                mc.cores = 1)
bad <- vapply(res, is.null, NA)
if (any(bad)) message("failed: ", paste(vapply(CASES[bad], `[[`, "", "id"), collapse = " "))
write_json(list(versions = versions(), note = "rows follow names; level_L: lower and upper limit; a REML fit is profiled by ML; seconds_default: lme4's profile() with default steps", cases = res[!bad]), out)
