# Tests of terms and of models, Kenward-Roger: Rscript anova.R DATA_DIRECTORY [anova.json] [id-pattern]
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", commandArgs(FALSE), value = TRUE))))
source(file.path(here, "common.R"))
suppressPackageStartupMessages({ library(car); library(pbkrtest) })
args <- data_dir(); dir <- args[1]
out <- if (length(args) > 1) args[2] else file.path(here, "anova.json")

gt <- c("INDEX", "BROOD", "YEAR", "LOCATION")
phase3 <- list(phase = "ifelse(Days < 3, 'a', ifelse(Days < 7, 'b', 'c'))")
slp <- function(id, f, ...) model(id = id, dataset = "sleepstudy", engine = "lmer", reml = TRUE, factors = "Subject", formula = f, ...)
pen <- function(id, f, ...) model(id = id, dataset = "penguins", factors = "year", formula = f, ...)
tit <- function(id, f, ...) model(id = id, dataset = "titanic", engine = "glm", family = "binomial", link = "logit", factors = "pclass", formula = f, ...)
grt <- function(id, f, ...) model(id = id, dataset = "grouseticks", engine = "glmer", family = "poisson", link = "log", factors = gt, formula = f, ...)
cbp <- function(id, f, ...) model(id = id, dataset = "cbpp", engine = "glmer", family = "binomial", link = "logit", factors = c("herd", "period"), formula = f, ...)

# sum: factors that car's type III needs in sum coding
TERMS <- list(
  slp("lmer_sleepstudy", "Reaction ~ Days + (Days|Subject)"),
  slp("lmer_sleepstudy_phase", "Reaction ~ phase + (1|Subject)", derive = phase3, sum = "phase"),
  model(id = "lmer_chickweight", dataset = "chickweight", engine = "lmer", reml = TRUE, factors = c("Chick", "Diet"),
        formula = "weight ~ Time * Diet + (1|Chick)", sum = "Diet"),
  pen("lmer_penguins_crossed", "body_mass_g ~ species * sex + bill_depth_mm + (1|island) + (1|year)", engine = "lmer", reml = TRUE, sum = c("species", "sex")),
  model(id = "lmer_pastes", dataset = "pastes", engine = "lmer", reml = TRUE, formula = "strength ~ cask + (1|batch) + (1|sample)", sum = "cask"),
  pen("lm_penguins", "body_mass_g ~ species * sex + island", sum = c("species", "sex", "island")),
  pen("lm_penguins_covariate", "body_mass_g ~ species * bill_depth_mm + sex", sum = c("species", "sex")),
  model(id = "lm_mtcars", dataset = "mtcars", formula = "mpg ~ wt * hp + factor(cyl)"),
  model(id = "lm_mtcars_weights", dataset = "mtcars", formula = "mpg ~ wt * hp", weights = "qsec"),
  tit("glm_titanic", "survived ~ sex * pclass + age", sum = c("sex", "pclass")),
  model(id = "glm_mtcars_gaussian_log", dataset = "mtcars", engine = "glm", link = "log", formula = "mpg ~ wt + hp"),
  cbp("glmer_cbpp", "cbind(incidence, size - incidence) ~ period + (1|herd)", sum = "period"),
  grt("glmer_grouseticks", "TICKS ~ YEAR * cHEIGHT + (1|LOCATION) + (1|INDEX)", derive = list(cHEIGHT = "(HEIGHT - 460) / 50"), sum = "YEAR"))

MODELS <- list(
  list(id = "sleepstudy", base = slp("", ""), reml = FALSE, formulas = c("Reaction ~ 1 + (1|Subject)", "Reaction ~ Days + (1|Subject)", "Reaction ~ Days + (Days|Subject)")),
  list(id = "penicillin", base = model(dataset = "penicillin", engine = "lmer"), formulas = c("diameter ~ 1 + (1|plate)", "diameter ~ 1 + (1|plate) + (1|sample)")),
  list(id = "cbpp", base = cbp("", ""), formulas = c("cbind(incidence, size - incidence) ~ 1 + (1|herd)", "cbind(incidence, size - incidence) ~ period + (1|herd)")),
  list(id = "grouseticks", base = grt("", ""), formulas = c("TICKS ~ YEAR + (1|LOCATION)", "TICKS ~ YEAR + (1|LOCATION) + (1|BROOD)", "TICKS ~ YEAR + (1|LOCATION) + (1|BROOD) + (1|INDEX)")),
  list(id = "titanic", base = tit("", ""), formulas = c("survived ~ sex", "survived ~ sex + pclass", "survived ~ sex * pclass")),
  list(id = "mtcars", base = model(dataset = "mtcars"), formulas = c("mpg ~ wt", "mpg ~ wt + hp", "mpg ~ wt * hp + factor(cyl)")))

frame <- function(x, drop = character()) {
  x <- as.data.frame(x); x <- x[!(rownames(x) %in% c("Residuals", "NULL", "(Intercept)", drop)), , drop = FALSE]
  c(list(term = I(rownames(x))), lapply(as.list(x), vec))
}
refit <- function(case, coding) {
  if (length(case$sum) && coding == "sum") case$contrasts <- as.list(setNames(rep("sum", length(case$sum)), case$sum))
  d <- prepare(dir, case)
  assign("d_", d, envir = globalenv())
  f <- fit_case(case, d)
  # car and lmerTest look the data up again; a name keeps their calls short.
  if (!is.null(attr(f, "call"))) NULL
  f
}
lme_tables <- function(case) {
  m <- refit(case, "treatment"); t <- list()
  l <- lmerTest::as_lmerModLmerTest(m)
  for (type in c("I", "II", "III")) {
    t[[paste0("satterthwaite_", type)]] <- frame(anova(l, type = type))
    t[[paste0("kenward-roger_", type)]] <- frame(anova(l, type = type, ddf = "Kenward-Roger"))
  }
  t$drop1_F <- frame(lmerTest:::drop1.lmerModLmerTest(l))
  t$drop1_lrt <- frame(drop1(m, test = "Chisq"))
  t$wald_II <- frame(car::Anova(m, type = 2))
  t$wald_III <- frame(car::Anova(refit(case, "sum"), type = 3))
  V <- as.matrix(pbkrtest::vcovAdj(m))
  kr <- lmerTest:::summary.lmerModLmerTest(l, ddf = "Kenward-Roger")$coefficients
  c(list(tables = t), list(names = I(names(fixef(m))), vcov_adjusted = rows(V), kr_df = vec(kr[, "df"])))
}
other_tables <- function(case) {
  m <- refit(case, "treatment"); s <- refit(case, "sum"); t <- list()
  if (case$engine == "lm") {
    t$F_I <- frame(anova(m)); t$F_II <- frame(car::Anova(m, type = 2)); t$F_III <- frame(car::Anova(s, type = 3))
    t$drop1_F <- frame(drop1(m, test = "F"), "<none>")
  } else if (case$engine == "glm") {
    if (case$family != "gaussian") {
      t$lrt_I <- frame(anova(m, test = "Chisq")); t$lrt_II <- frame(car::Anova(m, type = 2)); t$lrt_III <- frame(car::Anova(s, type = 3))
      t$drop1_lrt <- frame(drop1(m, test = "Chisq"))
    }
    t$wald_II <- frame(car::Anova(m, type = 2, test.statistic = "Wald")); t$wald_III <- frame(car::Anova(s, type = 3, test.statistic = "Wald"))
  } else {
    t$drop1_lrt <- frame(drop1(m, test = "Chisq"))
    t$wald_II <- frame(car::Anova(m, type = 2)); t$wald_III <- frame(car::Anova(s, type = 3))
  }
  list(tables = t)
}
run_terms <- function(case) {
  d <- prepare(dir, case)
  c(list(kind = "terms", model = describe(case, d)), if (case$engine == "lmer") lme_tables(case) else other_tables(case))
}
run_models <- function(set) {
  fits <- lapply(set$formulas, function(f) { case <- modifyList(set$base, list(formula = f, reml = FALSE)); fit_case(case, prepare(dir, case)) })
  case <- modifyList(set$base, list(id = set$id, formula = tail(set$formulas, 1), reml = FALSE))
  engine <- set$base$engine
  a <- if (engine == "glm") anova(fits[[1]], fits[[2]], fits[[3]], test = "Chisq") else do.call(anova, c(fits, if (engine %in% c("lmer", "glmer")) list(model.names = paste0("m", seq_along(fits)))))
  list(kind = "models", model = describe(case, prepare(dir, case)), formulas = I(set$formulas), table = lapply(as.list(as.data.frame(a)), vec),
       logLik = vec(sapply(fits, function(f) as.numeric(logLik(f)))))
}
pattern <- if (length(args) > 2) args[3] else "."
pick <- function(x) Filter(function(z) grepl(pattern, z$id), x)
res <- c(lapply(pick(TERMS), function(z) { message(z$id); run_terms(z) }), lapply(pick(MODELS), function(z) { message(z$id); run_models(z) }))
v <- versions(); for (p in c("car", "pbkrtest")) v[[p]] <- as.character(packageVersion(p))
write_json(list(versions = v, note = "terms: tables by test and type, columns as R prints them; car's type III with the factors under `sum` in sum coding; models: R's anova() of the formulas in order, ML", cases = res), out)
